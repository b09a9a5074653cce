//! Takes the DWARF out of the compiled programs: the linker makes BTF of it, which the kernel and the loader read, and
//! leaves it there, three quarters of the object, which every agent would carry in its memory.
//!
//! Sections keep their numbers, so that nothing that names one has to change; those of DWARF become empty.

use anyhow::{Context, Result, ensure};

/// Bytes of the header of an ELF file of 64 bits, and of a section's.
const HEADER: usize = 64;
const SECTION: usize = 64;
/// `SHT_NULL`: the first section, which is none.
const NOTHING: u32 = 0;
/// `SHT_NOBITS`: a section without bytes in the file.
const NO_BITS: u32 = 8;

/// The object without its DWARF.
pub(super) fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let little_endian_64 = [0x7f, b'E', b'L', b'F', 2, 1];
    ensure!(object.starts_with(&little_endian_64), "this is no ELF object of the programs");
    let table = to_usize(u64_at(object, 0x28)?)?;
    let (count, names) = (u16_at(object, 0x3c)?, u16_at(object, 0x3e)?);
    let header = |number: u16| -> Result<&[u8]> {
        let start = table + usize::from(number) * SECTION;
        object.get(start..start + SECTION).context("a section's header lies outside of the object")
    };
    let names = content(object, header(names)?)?;
    let mut stripped = object.get(..HEADER).context("the object's header is cut off")?.to_vec();
    let mut headers = Vec::new();
    for number in 0..count {
        let mut section = header(number)?.to_vec();
        if u32_at(&section, 4)? == NOTHING {
            headers.extend(section);
            continue;
        }
        let name = names.get(u32_at(&section, 0)? as usize..).context("a section's name")?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let kept = if is_dwarf(name) {
            section[32..40].fill(0);
            &[][..]
        } else {
            content(object, &section)?
        };
        pad(&mut stripped, to_usize(u64_at(&section, 48)?)?);
        section[24..32].copy_from_slice(&(stripped.len() as u64).to_le_bytes());
        stripped.extend(kept);
        headers.extend(section);
    }
    pad(&mut stripped, 8);
    let table = stripped.len() as u64;
    stripped.extend(headers);
    stripped[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    Ok(stripped)
}

fn is_dwarf(name: &[u8]) -> bool {
    name.starts_with(b".debug_") || name.starts_with(b".rel.debug_")
}

/// The bytes of a section.
fn content<'a>(object: &'a [u8], section: &[u8]) -> Result<&'a [u8]> {
    if u32_at(section, 4)? == NO_BITS {
        return Ok(&[]);
    }
    let (start, size) = (to_usize(u64_at(section, 24)?)?, to_usize(u64_at(section, 32)?)?);
    object.get(start..start + size).context("a section lies outside of the object")
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment.max(1)), 0);
}

fn to_usize(number: u64) -> Result<usize> {
    usize::try_from(number).context("a number is too large for this machine")
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..at + N).and_then(|found| found.try_into().ok());
    found.context("the object is cut off")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of these sections; the first one is empty, as ELF wants it, and the last one has the names.
    fn object(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut object = vec![0; HEADER];
        object[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        let mut headers = vec![0; SECTION];
        let mut add = |object: &mut Vec<u8>, name: usize, content: &[u8]| {
            pad(object, 8);
            let mut header = [0; SECTION];
            header[..4].copy_from_slice(&(name as u32).to_le_bytes());
            header[4] = 1;
            header[24..32].copy_from_slice(&(object.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            header[48] = 8;
            object.extend(content);
            headers.extend(header);
        };
        for (name, content) in sections {
            add(&mut object, names.len(), content);
            names.extend(name.bytes().chain([0]));
        }
        let own = names.len();
        names.extend(b".shstrtab\0");
        add(&mut object, own, &names);
        pad(&mut object, 8);
        let table = object.len() as u64;
        object[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        object[0x3c..0x3e].copy_from_slice(&(sections.len() as u16 + 2).to_le_bytes());
        object[0x3e..0x40].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
        object.extend(headers);
        object
    }

    #[test]
    fn dwarf_goes_and_everything_else_stays_with_its_number() {
        let dwarf = [7; 1000];
        let with = object(&[
            ("classifier", b"programs"),
            (".debug_info", &dwarf),
            (".rel.debug_info", &dwarf),
            (".BTF", b"types"),
            (".rel.BTF.ext", b"places"),
        ]);
        let empty = object(&[
            ("classifier", b"programs"),
            (".debug_info", b""),
            (".rel.debug_info", b""),
            (".BTF", b"types"),
            (".rel.BTF.ext", b"places"),
        ]);
        assert_eq!(without_dwarf(&with).unwrap(), empty);
        assert_eq!(without_dwarf(&empty).unwrap(), empty);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(without_dwarf(b"#!/bin/sh").is_err());
        let cut = object(&[("classifier", b"programs")]);
        assert!(without_dwarf(&cut[..cut.len() - 1]).is_err());
    }
}
