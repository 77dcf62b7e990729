/* launcher.c - python.exe for the Windows CPython of the tests: the interpreter is the DLL's. */
#include <wchar.h>

__declspec(dllimport) int Py_Main(int argc, wchar_t **argv);

int wmain(int argc, wchar_t **argv) { return Py_Main(argc, argv); }
