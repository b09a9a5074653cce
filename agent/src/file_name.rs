//! Names of files that are called after objects. An object's name may have 253 characters, which is more than a file's has
//! room for once a kind, a namespace and an ending stand around it.
//!
//! Whoever reads a folder of such files goes by what is in them: a name that was cut does not say whose it is.

use crate::netlink::address::digest;

/// Bytes that the name of a file may have (`NAME_MAX`).
const ROOM: usize = 255;

/// A file's name: `name` and `ending`, with `name` cut where they would not fit.
pub(crate) fn fitting(name: &str, ending: &str) -> String {
    format!("{}{ending}", cut(name, ROOM.saturating_sub(ending.len())))
}

/// Whether a file can be called so in full.
pub(crate) fn fits(name: &str, ending: &str) -> bool {
    name.len() + ending.len() <= ROOM
}

/// A name of at most `room` bytes: the beginning of a longer one, and digits that follow from the whole of it.
pub(crate) fn cut(name: &str, room: usize) -> String {
    if name.len() <= room {
        return name.to_owned();
    }
    // No name of an object has a `~`, so none is another's cut one.
    let digits: String = digest(&[name])[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let begin = name.floor_char_boundary(room.saturating_sub(digits.len() + 1));
    format!("{}~{digits}", &name[..begin])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_only_where_it_must_be() {
        let longest = "n".repeat(250);
        assert_eq!(fitting(&longest, ".json"), format!("{longest}.json"));
        let name = fitting(&(longest.clone() + "x"), ".json");
        assert!(name.len() <= ROOM && name.ends_with(".json") && name.contains('~'), "{name}");
        assert_ne!(name, fitting(&(longest.clone() + "y"), ".json"), "names with the same beginning differ");
        assert_eq!(name, fitting(&(longest + "x"), ".json"), "the same name is found again");
        assert!(fitting(&"ü".repeat(200), ".json").len() <= ROOM, "no character is cut in two");
    }
}
