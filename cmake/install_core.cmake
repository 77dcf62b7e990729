# What C and C++ programs embed: headers, static libraries, pkg-config files and a CMake package.
#
# All of it lies in one tree, include/ and lib/, whose files name each other relatively, so that it
# may lie anywhere: at the install prefix, and in a wheel inside the package pools. There it is one tree for the
# allocators and for the engine, which is built on them: one path for a compiler to be given, and not two that have
# to match. CMake's own exported targets are relative to the install prefix, which a wheel does not have: hence a
# package by hand.
include(CMakePackageConfigHelpers)

if(SKBUILD)
  set(tree pools)
else()
  set(tree .)
endif()
set(package ${tree}/lib/cmake/poolport)

function(poolport_pkg_config name)
  set(POOLPORT_PC_LIBS)
  foreach(flag ${ARGN})
    string(APPEND POOLPORT_PC_LIBS " ${flag}")
  endforeach()
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${tree}/lib/pkgconfig)
endfunction()

if(WIN32)
  poolport_pkg_config(poolport)
else()
  list(TRANSFORM CMAKE_DL_LIBS PREPEND -l OUTPUT_VARIABLE dl)
  poolport_pkg_config(poolport -pthread ${dl})
endif()
get_target_property(POOLPORT_ENGINE_SYSTEM_LIBS port_core INTERFACE_LINK_LIBRARIES)
list(REMOVE_ITEM POOLPORT_ENGINE_SYSTEM_LIBS pools_core)
list(TRANSFORM POOLPORT_ENGINE_SYSTEM_LIBS PREPEND -l OUTPUT_VARIABLE system)
poolport_pkg_config(poolport-engine ${system})

foreach(library poolport poolport_engine)
  string(TOUPPER ${library}_FILE name)
  set(${name} ${CMAKE_STATIC_LIBRARY_PREFIX}${library}${CMAKE_STATIC_LIBRARY_SUFFIX})
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/poolport-config.cmake.in
  ${PROJECT_BINARY_DIR}/poolport-config.cmake @ONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/poolport-config-version.cmake
  VERSION ${POOLPORT_VERSION} COMPATIBILITY SameMinorVersion)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/pools/core/include/poolport
  ${PROJECT_SOURCE_DIR}/iocp_adapter/core/include/poolport DESTINATION ${tree}/include)
install(TARGETS pools_core port_core ARCHIVE DESTINATION ${tree}/lib)
install(FILES ${PROJECT_BINARY_DIR}/poolport-config.cmake ${PROJECT_BINARY_DIR}/poolport-config-version.cmake
  DESTINATION ${package})
