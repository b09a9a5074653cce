//! Fetches the oldest kernel that Sinew supports: Debian 13's 6.12, as its cloud image has it.
//!
//! apt does the fetching, with a configuration and folders of its own, so that another suite never gets into the
//! machine's. The mirror's address is the one that the machine's own package lists come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{paths, process};

const SUITE: &str = "trixie";
const SERIES: &str = "6.12";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel package.
pub(crate) struct Kernel {
    release: String,
    image: PathBuf,
}

impl Kernel {
    /// The newest package of the series, fetched once.
    pub(crate) fn fetch() -> Result<Self> {
        let folder = paths::cache()?.join(format!("kernel-{SERIES}"));
        if let Some(kernel) = Self::find(&folder)? {
            return Ok(kernel);
        }
        eprintln!("kernel: fetching Debian's {SERIES}");
        let beside = folder.with_extension("new");
        if beside.exists() {
            fs::remove_dir_all(&beside).with_context(|| format!("cannot empty {}", beside.display()))?;
        }
        let apt = Apt::new(&beside.join("apt"))?;
        process::run(apt.command("apt-get").args(["update", "--quiet"]))?;
        let names =
            process::output(apt.command("apt-cache").args(["pkgnames", &format!("linux-image-{SERIES}.")]))?;
        let package = newest(&names).with_context(|| format!("{SUITE} has no cloud kernel {SERIES}"))?;
        process::run(apt.command("apt-get").args(["download", "--quiet", package]).current_dir(&beside))?;
        let archive = only_archive(&beside)?;
        process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(beside.join("root")))?;
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
        fs::remove_dir_all(beside.join("apt")).context("cannot remove apt's private folders")?;
        fs::rename(&beside, &folder).with_context(|| format!("cannot put {} in place", folder.display()))?;
        Self::find(&folder)?.context("the kernel package has no image in /boot")
    }

    /// Such as `6.12.94+deb13-cloud-amd64`.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// The file that a boot loader, or the emulator, starts.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    fn find(folder: &Path) -> Result<Option<Self>> {
        let boot = folder.join("root/boot");
        if !boot.is_dir() {
            return Ok(None);
        }
        for entry in fs::read_dir(&boot).with_context(|| format!("cannot list {}", boot.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", boot.display()))?;
            if let Some(release) = entry.file_name().to_str().and_then(|name| name.strip_prefix("vmlinuz-")) {
                return Ok(Some(Self { release: release.to_owned(), image: entry.path() }));
            }
        }
        Ok(None)
    }
}

/// apt with nothing of this machine but the mirror.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path) -> Result<Self> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let status = folder.join("status");
        fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
        let list = folder.join("sources.list");
        fs::write(&list, format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", mirror()?))
            .with_context(|| format!("cannot write {}", list.display()))?;
        let at = |part: &str| folder.join(part).display().to_string();
        let options = vec![
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            // The folders are this user's, not apt's own user's.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        Ok(Self { options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// Where this machine gets Debian's packages from.
fn mirror() -> Result<String> {
    let mut apt = Command::new("apt-get");
    let targets =
        process::output(apt.args(["indextargets", "--format", "$(LABEL) $(CREATED_BY) $(REPO_URI)"]))
            .context("Debian's kernels come by apt, and apt does not answer")?;
    match targets.lines().find_map(|line| line.strip_prefix("Debian Packages ")) {
        Some(address) => Ok(address.to_owned()),
        None => bail!(
            "no Debian mirror is among this machine's apt sources, so there is no {SERIES} kernel to test on"
        ),
    }
}

/// Of `linux-image-6.12.94+deb13-cloud-amd64` and its like the one with the highest numbers.
fn newest(names: &str) -> Option<&str> {
    names.lines().filter(|name| name.ends_with("-cloud-amd64")).max_by_key(|name| {
        name.split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect::<Vec<u32>>()
    })
}

fn only_archive(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut archives = entries.filter_map(|entry| Some(entry.ok()?.path()));
    archives
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get downloaded no package")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_found_by_its_numbers() {
        let names = "linux-image-6.12.94+deb13-cloud-amd64-unsigned\nlinux-image-6.12.94+deb13-cloud-amd64\n\
                     linux-image-6.12.107+deb13-cloud-amd64\nlinux-image-6.12.108+deb13-cloud-amd64-dbg";
        assert_eq!(newest(names), Some("linux-image-6.12.107+deb13-cloud-amd64"));
        assert_eq!(newest("linux-image-6.12.94+deb13-amd64"), None);
    }
}
