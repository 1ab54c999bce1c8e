//! Compiles PID 1 of the sandboxes: static, so that it runs in any image, and with the same compiler as the
//! worker, so that nothing else is to be installed. It is no member of the workspace because it alone needs
//! `unsafe`. The worker embeds the result.

use std::{env, error::Error, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    const SOURCE: &str = "sandbox-init/main.rs";
    println!("cargo::rerun-if-changed=sandbox-init");
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = env::var_os("RUSTC").ok_or("cargo did not set RUSTC")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?).join("sandbox-init");
    let target = env::var("TARGET")?;
    let mut command = Command::new(compiler);
    command
        .args(["--edition=2024", "--crate-name=sandbox_init", "--crate-type=bin", "-O", "-Cpanic=abort"])
        .args(["-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-Drust_2018_idioms", "--target"])
        .arg(&target)
        .arg("-o")
        .arg(&out)
        .arg(SOURCE);
    // A cross build says its linker the way cargo does.
    let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    if let Some(linker) = env::var_os(&linker) {
        command.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    let status = command.status()?;
    if !status.success() {
        return Err(format!("compiling {SOURCE} for {target} failed ({status})").into());
    }
    Ok(())
}
