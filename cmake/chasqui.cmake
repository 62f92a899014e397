# SPDX-License-Identifier: MPL-2.0
# Helpers: cq::flags (warnings, sanitizers), cq_component(), cq_test().

set(CQ_SANITIZE "" CACHE STRING "sanitizers, e.g. address;undefined or thread")

add_library(cq_flags INTERFACE)
add_library(cq::flags ALIAS cq_flags)
target_include_directories(cq_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(cq_flags INTERFACE _GNU_SOURCE CQ_VERSION="${PROJECT_VERSION}")
target_compile_options(
  cq_flags
  INTERFACE -Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wstrict-prototypes
            -Wmissing-prototypes
            -Wold-style-definition
            -Wpointer-arith
            -Wcast-qual
            -Wwrite-strings
            -Wvla
            -Wundef
            -Wformat=2
            -Wswitch-enum
            -Wimplicit-fallthrough
            -Wconversion
            -Wno-sign-conversion
            -fno-omit-frame-pointer
            -fstack-protector-strong)
if(CQ_SANITIZE)
  list(JOIN CQ_SANITIZE "," _san)
  target_compile_options(cq_flags INTERFACE -fsanitize=${_san} -fno-sanitize-recover=all)
  target_link_options(cq_flags INTERFACE -fsanitize=${_san})
endif()

# cq_component(NAME broker SOURCES a.c b.c DEPS cq::rt [PROGRAM chasqui-broker])
# A static library with everything but main.c, and a thin executable from main.c.
function(cq_component)
  cmake_parse_arguments(ARG "" "NAME;PROGRAM" "SOURCES;DEPS" ${ARGN})
  add_library(${ARG_NAME} STATIC ${ARG_SOURCES})
  add_library(cq::${ARG_NAME} ALIAS ${ARG_NAME})
  target_link_libraries(${ARG_NAME} PUBLIC cq::flags ${ARG_DEPS})
  if(ARG_PROGRAM)
    add_executable(${ARG_PROGRAM} main.c)
    target_link_libraries(${ARG_PROGRAM} PRIVATE ${ARG_NAME})
  endif()
endfunction()

# cq_test(NAME unit.wire.reader SOURCES x.c DEPS cq::wire [LABEL unit] [TIMEOUT 20])
function(cq_test)
  cmake_parse_arguments(ARG "" "NAME;LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 60)
  endif()
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  target_link_libraries(${ARG_NAME} PRIVATE cq::flags ${ARG_DEPS} PkgConfig::CMOCKA)
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()
