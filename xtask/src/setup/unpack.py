"""Unpacks from wheels what a C++ program needs of libtorch: unpack.py FLAVOUR WHEELS DESTINATION."""

import pathlib
import shutil
import sys
import zipfile

flavour, wheels, destination = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
# What libtorch_cpu.so links of NVIDIA's libraries. Nothing calls them on a machine without a GPU.
linked = {"libcudart.so.13", "libcupti.so.13"}
# Of the torch wheel: Python's part, and what needs CUDA.
python = ("libtorch_python", "libshm", "libtorch_global_deps")
cuda = ("libtorch.so", "libtorch_cuda", "libtorch_nvshmem", "libc10_cuda", "libcaffe2_nvrtc")


def place(member):
    """Where a member goes, or None."""
    parts = member.split("/")
    name, folder = parts[-1], parts[-2] if len(parts) > 1 else ""
    if parts[:2] == ["torch", "include"] and name:
        return pathlib.Path(*parts[1:])
    if folder != "lib" or ".so" not in name:
        return None
    if parts[0] == "torch":
        unwanted = python if flavour == "cuda" else python + cuda
        return None if name.startswith(unwanted) else pathlib.Path("lib", name)
    return pathlib.Path("lib", name) if flavour == "cuda" or name in linked else None


for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            path = place(member)
            if path is not None:
                target = destination / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
