"""Maps the top-level rooms onto one package; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["screener_nnu", "screener_nnu.*"]),
        "screener_nnu.planners",
        "screener_nnu.trainers",
        "screener_nnu.trainers.nnunet_shim",
    ],
    package_dir={
        "screener_nnu": "screener_nnu",
        "screener_nnu.planners": "planners",
        "screener_nnu.trainers": "trainers",
        "screener_nnu.trainers.nnunet_shim": "trainers/nnunet_shim",
    },
    package_data={"screener_nnu": ["py.typed", "**/*.html", "**/*.css", "**/*.js"]},
)
