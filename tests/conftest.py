pytest_plugins = [
    'tests.fixtures_teachers',
    'tests.runs',
    'tests.fixtures_distilled',
    'tests.fixtures_labeled',
]
