import sys
from pathlib import Path

# the installer runs as a script: its modules are siblings, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'install'))
