import errno
import os
import resource
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from geneae.settings.errors import InputError
from geneae.settings.faults import FAULTS, fault_of, loading_fault, refusal_of


@pytest.mark.parametrize("number", FAULTS)
def test_an_error_of_the_system_is_a_sentence_with_its_file_and_advice(number: int) -> None:
    what, advice = FAULTS[number]
    assert fault_of(OSError(number, os.strerror(number))) == f"{what}. {advice}"
    assert fault_of(OSError(number, os.strerror(number), "run/metrics.csv")) == f"{what} (run/metrics.csv). {advice}"


WRAPPED = {
    "safetensors": (SafetensorError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
    "h5py": (RuntimeError("Can't flush (write failed: errno = 27, error message = 'File too large')"), errno.EFBIG),
    "numpy": (OSError("200000 requested and 496 written"), errno.ENOSPC),
    "a new class of numpy": (MemoryError("Unable to allocate 74.5 GiB"), errno.ENOMEM),
    "torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), errno.ENOMEM),
    "C++": (RuntimeError("std::bad_alloc"), errno.ENOMEM),
    "library that does not load": (SystemError("error return without exception set"), errno.ENOMEM),
    "a shared library": (ImportError("failed to map segment: Cannot allocate memory"), errno.ENOMEM),
    "threads": (RuntimeError("can't start new thread"), errno.EAGAIN),
    "no number": (OSError("Too many open files"), errno.EMFILE),
}
"""Errors as libraries wrap them."""


@pytest.mark.parametrize("library", WRAPPED)
def test_libraries_wrap_them_in_their_own_words(library: str) -> None:
    error, number = WRAPPED[library]
    what, advice = FAULTS[number]
    assert fault_of(error) == f"{what}. {advice}"


def test_what_libraries_say_today_is_known(tmp_path: Path) -> None:
    what, advice = FAULTS[errno.ENOMEM]
    for make in (lambda: np.empty(2**50), lambda: torch.empty(2**50)):
        with pytest.raises((MemoryError, RuntimeError)) as error:
            make()
        assert fault_of(error.value) == f"{what}. {advice}"
    with pytest.raises(OSError, match="No space") as error, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    assert str(fault_of(error.value)).startswith("the disk is full. ")


def test_the_cause_of_an_input_error_counts_and_its_own_words_do_not() -> None:
    assert fault_of(InputError("the layer 'No space left on device' is unknown")) is None
    error = InputError("a file could not be read")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    assert str(fault_of(error)).startswith("too many files are open. ")


def test_processes_and_gpus_have_sentences_of_their_own() -> None:
    assert str(fault_of(BrokenProcessPool("terminated abruptly"))).startswith("one of several processes ended before")
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert fault_of(error) == (
        "the GPU has not enough memory. Use a smaller --batch-size, a GPU with more memory, or --device cpu."
    )


def test_other_errors_are_none(tmp_path: Path) -> None:
    for error in (ValueError("a bug"), KeyError(28), OSError(errno.ENOENT, "none"), RuntimeError("os error"), None):
        assert fault_of(error) is None
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(OSError, match="Unable to") as error:
        h5py.File(tmp_path / "text.h5")
    assert fault_of(error.value) is None


def test_a_path_that_the_system_refuses_is_named() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/etc/run")
    assert refusal_of(error) == (
        "Permission denied (/etc/run). Check that the path exists and may be read and written, or choose another."
    )
    assert refusal_of(OSError("odd\nstory")).startswith("odd. Check that ")


@pytest.mark.parametrize(("threads", "needed"), [("1", "1.30"), ("8", "2.35"), ("500", "10.75")])
def test_libraries_need_address_space_for_every_thread(
    threads: str, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    limit = round(float(needed) * 1e9)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit - 1, limit))
    said = loading_fault()
    assert said is not None
    assert f"{needed} GB of address space with {min(int(threads), 64)} threads" in said
    for enough in (limit, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _, enough=enough: (enough, enough))
        assert loading_fault() is None
