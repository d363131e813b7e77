"""`python zoo_models.py ZOO OUT` saves each model of the zoo, a Python file beside this project, that TFF can save below OUT."""

import importlib.util
import pathlib
import sys

import tensorflow_federated as tff

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("zoo", sys.argv[1])
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    for name, (make, _) in zoo.ZOO.items():
        try:
            tff.learning.models.save_functional_model(make(), str(pathlib.Path(sys.argv[2]) / name))
        except Exception as error:  # noqa: BLE001 - some show what users try: TFF 0.87 itself refuses them.
            print(name, error)
