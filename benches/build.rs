//! Compiles the XDP programs of the benchmarks with clang.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "bpf/veth.bpf.c";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let folder = std::env::var_os("OUT_DIR").map(PathBuf::from).expect("cargo sets OUT_DIR");
    // Debian keeps asm/types.h in the folder of the architecture, where clang -target bpf does not look.
    let headers = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let status = Command::new(&clang)
        .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-I", &headers, "-c", source])
        .arg("-o")
        .arg(folder.join("veth.bpf.o"))
        .status()
        .unwrap_or_else(|error| {
            panic!("starting {clang} (packages clang and libbpf-dev are needed): {error}")
        });
    assert!(status.success(), "{clang} ended with {status}; packages clang and libbpf-dev are needed");
}
