//! Compiles the XDP program with clang. The object lands in OUT_DIR and is embedded by `src/program.rs`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "src/bpf";
const PROGRAM: &str = "src/bpf/steer.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("steer.bpf.o");
    if let Err(message) = compile(&out) {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn compile(out: &Path) -> Result<(), String> {
    let includes = include_folders()?;
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let output = Command::new(&clang)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-c"])
        .args(includes.iter().map(|folder| format!("-I{}", folder.display())))
        .arg(PROGRAM)
        .arg("-o")
        .arg(out)
        .output()
        .map_err(|error| {
            format!(
                "the XDP program needs clang, and {} does not start: {error}\n\
                 on Debian and Ubuntu: apt-get install clang libbpf-dev linux-libc-dev",
                clang.display()
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{} could not compile {PROGRAM} ({})\n{}",
        clang.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Folders with `asm/types.h`, which Debian keeps apart for each architecture.
fn include_folders() -> Result<Vec<PathBuf>, String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = PathBuf::from(format!("/usr/include/{arch}-linux-gnu"));
    let folders = vec![multiarch, PathBuf::from("/usr/include")];
    for (header, package) in [
        ("bpf/bpf_helpers.h", "libbpf-dev"),
        ("linux/bpf.h", "linux-libc-dev"),
        ("asm/types.h", "linux-libc-dev"),
    ] {
        if !folders.iter().any(|folder| folder.join(header).exists()) {
            return Err(format!(
                "the XDP program needs the header {header}, which is not there\n\
                 on Debian and Ubuntu: apt-get install {package} (and clang libbpf-dev linux-libc-dev for the whole program)"
            ));
        }
    }
    Ok(folders.into_iter().filter(|folder| folder.exists()).collect())
}
