#!/bin/sh
# Plays every program that the tool starts, for the tests of the tool. What it does comes from
# variables, so that no test writes a program and runs it while another test forks.
case "$*" in
--version) echo "${FAKE_VERSION-QEMU emulator version 7.2.22 (fake)}" ;;
*target-libdir*) echo "${FAKE_LIBDIR-/}" ;;
*clippy*) eval "${FAKE_CLIPPY-exit 0}" ;;
*--no-run*) eval "${FAKE_BUILD_TESTS-exit 99}" ;;
*--bins*iommu-hobby-kernel*) eval "${FAKE_BUILD_HOBBY_KERNEL-exit 99}" ;;
*--bins*) eval "${FAKE_BUILD_EXAMPLES-exit 99}" ;;
*--bin=bench*) eval "${FAKE_BUILD_BENCH-exit 99}" ;;
*--bin=iommu-size*) eval "${FAKE_BUILD_SIZE-exit 99}" ;;
*--bin=demo*) eval "${FAKE_BUILD_DEMO-exit 99}" ;;
*--workspace*) eval "${FAKE_HOST_TESTS-exit 99}" ;;
*) eval "${FAKE_QEMU-exit 99}" ;;
esac
