# cffi_module(NAME PACKAGE package CORE target [SOURCES file...])
#
# Builds package/NAME as an extension module: abi3, except on a free-threaded interpreter, which has no
# such thing and gets a build of its own. What crosses the language border
# is package/bindings/NAME.cdef.h, an ordinary header that includes the core's own:
# the C preprocessor flattens it (with PP_CDEF defined) and cffi turns the result
# into C. package/bindings/NAME.source.h is what that C file includes. SOURCES are linked in as well:
# written by hand, against the limited API of Python.
function(cffi_module name)
  cmake_parse_arguments(arg "" "PACKAGE;CORE" "SOURCES" ${ARGN})
  set(bindings ${CMAKE_SOURCE_DIR}/${arg_PACKAGE}/bindings)
  set(flat ${CMAKE_CURRENT_BINARY_DIR}/${name}.cdef)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${name}.c)
  if(MSVC)
    set(preprocess /nologo /EP)
  else()
    set(preprocess -E -P -xc)
  endif()
  # Each core's public headers, whichever of them the module needs: arrows point down, so there is no clash.
  set(include_dirs)
  foreach(package pools iocp_adapter analysis)
    list(APPEND include_dirs -I${CMAKE_SOURCE_DIR}/${package}/core/include)
  endforeach()
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS
    ${CMAKE_SOURCE_DIR}/pools/core/include/*.h ${CMAKE_SOURCE_DIR}/iocp_adapter/core/include/*.h
    ${CMAKE_SOURCE_DIR}/analysis/core/include/*.h)
  add_custom_command(
    OUTPUT ${source}
    COMMAND ${CMAKE_C_COMPILER} ${preprocess} -DPP_CDEF ${include_dirs} ${bindings}/${name}.cdef.h > ${flat}
    COMMAND ${Python_EXECUTABLE} ${CMAKE_SOURCE_DIR}/cmake/emit_cffi.py
            ${arg_PACKAGE}.${name} ${flat} ${bindings}/${name}.source.h ${source}
    DEPENDS ${bindings}/${name}.cdef.h ${bindings}/${name}.source.h ${headers}
            ${CMAKE_SOURCE_DIR}/cmake/emit_cffi.py
    VERBATIM)
  python_add_library(${name} MODULE ${POOLPORT_ABI} WITH_SOABI ${source} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_CORE})
  # cffi's code uses alloca(), which the C library declares only with extensions.
  set_target_properties(${name} PROPERTIES C_EXTENSIONS ON)
  if(WIN32)
    # Windows knows no suffix for abi3; a build on another platform would add that platform's.
    set_target_properties(${name} PROPERTIES SUFFIX .pyd)
  endif()
  if(NOT MSVC)
    # Generated code: cffi's casts are not ours to mend.
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS -w)
  endif()
  install(TARGETS ${name} DESTINATION ${arg_PACKAGE})
endfunction()
