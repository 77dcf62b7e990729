# What C and C++ programs embed: headers, the static library, a pkg-config file and a CMake package.
#
# All of it lies in one tree, include/ and lib/, whose files name each other relatively, so that it
# may lie anywhere: at the install prefix, and in a wheel inside the package pools. CMake's own exported
# targets are relative to the install prefix, which a wheel does not have: hence a package by hand.
include(CMakePackageConfigHelpers)

if(SKBUILD)
  set(tree pools)
else()
  set(tree .)
endif()
set(package ${tree}/lib/cmake/poolport)

set(POOLPORT_PC_LIBS)
if(NOT WIN32)
  string(APPEND POOLPORT_PC_LIBS " -pthread")
  foreach(library ${CMAKE_DL_LIBS})
    string(APPEND POOLPORT_PC_LIBS " -l${library}")
  endforeach()
endif()
set(POOLPORT_LIBRARY_FILE ${CMAKE_STATIC_LIBRARY_PREFIX}poolport${CMAKE_STATIC_LIBRARY_SUFFIX})
configure_file(${PROJECT_SOURCE_DIR}/cmake/poolport.pc.in ${PROJECT_BINARY_DIR}/poolport.pc @ONLY)
configure_file(${PROJECT_SOURCE_DIR}/cmake/poolport-config.cmake.in
  ${PROJECT_BINARY_DIR}/poolport-config.cmake @ONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/poolport-config-version.cmake
  VERSION ${POOLPORT_VERSION} COMPATIBILITY SameMinorVersion)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/pools/core/include/poolport DESTINATION ${tree}/include)
install(TARGETS pools_core ARCHIVE DESTINATION ${tree}/lib)
install(FILES ${PROJECT_BINARY_DIR}/poolport-config.cmake ${PROJECT_BINARY_DIR}/poolport-config-version.cmake
  DESTINATION ${package})
install(FILES ${PROJECT_BINARY_DIR}/poolport.pc DESTINATION ${tree}/lib/pkgconfig)
