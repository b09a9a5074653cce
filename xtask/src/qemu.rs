//! Runs a program on a kernel that is not this machine's: an emulated machine with nothing but that program.
//!
//! The emulator interprets (TCG), so it works without nested virtualisation. Its first file system holds a static
//! busybox, the program and the libraries that it is linked against; what the program prints comes back over the
//! serial console. `qemu/kernel.rs` fetches the kernel.

mod kernel;

pub(crate) use kernel::Kernel;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{paths, process};

/// Long enough for every program of ours under an interpreter on a loaded machine.
const SECONDS: &str = "300";
const MEMORY: &str = "2048";
/// The line after what the machine says while it starts.
const BEGIN: &str = "sinew-guest-began";
/// Begins the line that ends a good run; the program's exit code follows.
const END: &str = "sinew-guest-ended";

/// Runs a program there, with files as its arguments, and returns what it printed.
///
/// # Errors
/// The machine did not come to its end, or the program ended with anything but success; both with its output.
pub(crate) fn run(kernel: &Kernel, program: &Path, files: &[&Path]) -> Result<String> {
    let folder = paths::target().join("qemu");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let image = folder.join("initramfs.cpio");
    make_image(&folder.join("initramfs"), &image, program, files)?;

    let mut qemu = Command::new("timeout");
    qemu.args([
        "--kill-after=5",
        SECONDS,
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-m",
        MEMORY,
    ]);
    qemu.args(["-nographic", "-no-reboot", "-nic", "none", "-kernel"]).arg(kernel.image());
    qemu.arg("-initrd").arg(&image);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
    let console = process::output(&mut qemu)?.replace('\r', "");
    let (printed, rest) = console
        .split_once(BEGIN)
        .and_then(|(_, guest)| guest.trim_start().split_once(END))
        .with_context(|| format!("the emulated machine did not end well; its console:\n{console}"))?;
    let code = rest.lines().next().unwrap_or_default().trim();
    if code != "0" {
        bail!("{} ended with {code} on {}:\n{printed}", program.display(), kernel.release());
    }
    Ok(printed.to_owned())
}

/// Packs everything that the machine has into one archive.
fn make_image(folder: &Path, image: &Path, program: &Path, files: &[&Path]) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(folder.join(name))
            .with_context(|| format!("cannot make {name} in {}", folder.display()))?;
    }
    let busybox = which("busybox")?;
    place(&busybox, &folder.join("bin/busybox"))?;
    for applet in ["sh", "mount", "poweroff"] {
        symlink("busybox", folder.join("bin").join(applet))
            .with_context(|| format!("cannot link {applet}"))?;
    }
    place(program, &folder.join("program"))?;
    for file in libraries(program)?.iter().map(PathBuf::as_path).chain(files.iter().copied()) {
        let there = folder.join(file.strip_prefix("/").unwrap_or(file));
        place(file, &there)?;
    }
    let init = folder.join("init");
    fs::write(&init, init_script(files)).with_context(|| format!("cannot write {}", init.display()))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("cannot make init executable")?;
    pack(folder, image)
}

fn init_script(files: &[&Path]) -> String {
    let arguments: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    format!(
        "#!/bin/sh\n\
         export PATH=/bin\n\
         mount -t devtmpfs dev /dev\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         echo {BEGIN}\n\
         /program {}\n\
         echo \"{END} $?\"\n\
         poweroff -f\n",
        arguments.join(" ")
    )
}

/// The dynamic loader and the libraries that a program is linked against, as `ldd` lists them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = process::output(Command::new("ldd").arg(program))?;
    Ok(listed.lines().filter_map(library).map(PathBuf::from).collect())
}

/// `libc.so.6 => /lib/x/libc.so.6 (0x7f..)` or `/lib64/ld-linux-x86-64.so.2 (0x7f..)`; the vDSO has no file.
fn library(line: &str) -> Option<&str> {
    let path = line.split_once(" => ").map_or(line, |(_, path)| path).trim();
    let path = path.split_once(" (").map_or(path, |(path, _)| path);
    path.starts_with('/').then_some(path)
}

fn place(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn which(program: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(process::output(Command::new("sh").args(["-c", &format!("command -v {program}")]))?))
}

fn pack(folder: &Path, image: &Path) -> Result<()> {
    let names = process::output(Command::new("find").arg(".").current_dir(folder))?;
    let archive = fs::File::create(image).with_context(|| format!("cannot write {}", image.display()))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--quiet"]).current_dir(folder);
    let mut child = cpio.stdin(Stdio::piped()).stdout(archive).spawn().context("cannot start cpio")?;
    let mut input = child.stdin.take().expect("the input was asked for as a pipe");
    input
        .write_all(names.as_bytes())
        .and_then(|()| input.write_all(b"\n"))
        .context("cannot write to cpio")?;
    drop(input);
    let status = child.wait().context("cannot wait for cpio")?;
    if !status.success() {
        bail!("cpio ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listed_libraries_are_files() {
        for (line, path) in [
            (
                "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)",
                Some("/lib/x86_64-linux-gnu/libc.so.6"),
            ),
            ("\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)", Some("/lib64/ld-linux-x86-64.so.2")),
            ("\tlinux-vdso.so.1 (0x00007ffd)", None),
            ("\tstatically linked", None),
        ] {
            assert_eq!(library(line), path, "{line}");
        }
    }
}
