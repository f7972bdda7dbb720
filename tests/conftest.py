pytest_plugins = [
    'tests.fixtures_teachers',
    'tests.runs',
    'tests.fixtures_distilled',
    'tests.fixtures_zero_shot',
    'tests.fixtures_labeled',
]
