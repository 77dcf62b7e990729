# Toolchain: Windows x86-64 by MinGW, its programs run by Wine.
#
# The Python modules are built for the Windows CPython in the directory that the environment's
# POOLPORT_WINDOWS_PYTHON names (tests/windows/make_python.py makes one).
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
# Nothing needs a DLL of MinGW's own.
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_MODULE_LINKER_FLAGS_INIT -static)
set(CMAKE_CROSSCOMPILING_EMULATOR wine)

if(DEFINED ENV{POOLPORT_WINDOWS_PYTHON})
  set(windows_python $ENV{POOLPORT_WINDOWS_PYTHON})
  list(APPEND CMAKE_FIND_ROOT_PATH ${windows_python})
  set(Python_INCLUDE_DIR ${windows_python}/include)
  set(Python_SABI_LIBRARY ${windows_python}/libs/libpython3.dll.a)
endif()
