"""Builds the kernels; everything else about the distribution is in pyproject.toml.

A kernel is an ordinary .py file in Cython's pure Python mode. Where no C compiler works the build goes on
without (`optional`): the same files are then imported as they are, slowly, and `tlswall` says so once.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = (
    "analyzer.capture.framing",
    "analyzer.columns.decode",
    "analyzer.columns.json_rows",
    "analyzer.flows.table",
    "analyzer.streams.reassembly",
    "analyzer.tls.records",
    "analyzer.tls.tracker",
    "analyzer.tls.hello",
    "analyzer.tls.nf_conntrack_tls",
)

extensions = cythonize(
    [
        Extension(
            module,
            [module.replace(".", "/") + ".py"],
            extra_compile_args=["-O2", "-g0", "-fno-strict-aliasing"],
        )
        for module in KERNELS
    ],
    build_dir="build/cython",
    compiler_directives={
        "language_level": 3,
        "boundscheck": True,  # captures are hostile input
        "wraparound": False,
        "initializedcheck": False,
        "cdivision": True,
        "annotation_typing": False,  # annotations are for readers and mypy; @cython.locals types the loops
        "embedsignature": True,
    },
)
for extension in extensions:
    extension.optional = True  # not carried over by cythonize: an argument of Extension would be lost

setup(ext_modules=extensions, options={"build_ext": {"parallel": os.cpu_count()}})
