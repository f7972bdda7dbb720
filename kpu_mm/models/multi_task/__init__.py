"""Several tasks on one backbone."""

__all__: list[str] = []
