# Warnings and hardening shared by every target of ours; third-party headers come in as SYSTEM.
option(GEMEL_WERROR "treat warnings as errors" ON)
option(GEMEL_MUTANTS "compile the run-time switchable mutants in (never in a release)" OFF)
set(GEMEL_SANITIZE "" CACHE STRING "value for -fsanitize=, empty for none")

add_library(gemel_flags INTERFACE)
target_compile_options(gemel_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wnon-virtual-dtor
    -Woverloaded-virtual -Wformat=2 -Wswitch-enum)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # std::stable_sort of libstdc++ 12 uses what it has marked as deprecated itself
    target_compile_options(gemel_flags INTERFACE -Wno-deprecated-declarations)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(gemel_flags INTERFACE -Wduplicated-cond -Wlogical-op)
endif()
if(GEMEL_WERROR)
    target_compile_options(gemel_flags INTERFACE -Werror)
endif()
target_compile_definitions(gemel_flags INTERFACE _GLIBCXX_ASSERTIONS)
if(NOT GEMEL_SANITIZE STREQUAL "")
    target_compile_options(gemel_flags INTERFACE -fsanitize=${GEMEL_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(gemel_flags INTERFACE -fsanitize=${GEMEL_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_options(gemel_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE)
    target_link_options(gemel_flags INTERFACE -pie -Wl,-z,relro,-z,now)
endif()
