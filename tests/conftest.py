pytest_plugins = ['tests.fixtures_teachers', 'tests.runs']
