//! What is pinned for a node, and whether it is what the programs need.
//!
//! A pinned map is reused by aya with no check of type, size or capacity, so it is compared here first with what the
//! programs define; the layout's version is part of the path, and another version is refused by name (datapath.md 31).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError, MapInfo, ProgramArray};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use sinew_bpf::abi::VERSION;
use sinew_bpf::kernel_drop::Places;
use sinew_bpf::settings::Settings;

use super::DatapathError;
use super::abi::Abi;
use super::counters::{Counted, MapFill};

/// The array that leads to [`ANSWER`]. Both programs of a tail call use the frame of their own load, so each load has an
/// array of its own, pinned with a number: programs of an earlier load keep using theirs until no link runs them.
const NEXT: &str = "NEXT";
/// Maps that outlive the agent. Their types and sizes are defined by the programs.
const PINNED: &[&str] = &[
    "WORDS",
    "INTERFACES",
    "ENDPOINTS",
    "IPCACHE",
    "RANGES",
    "CLASSES",
    "KNOWN",
    "POLICY",
    "CT_OPENING",
    "CT_TCP",
    "CT_ANY",
    "TABLES",
    "FRAGMENTS",
    "RULES",
    "DROPS",
    "EVENTS",
    "DROP_RECORDS",
    "KERNEL_DROPS",
    "COUNTING",
    "RINGS",
    "ANSWERS",
];

/// The program that answers refused packets, reached by tail call.
const ANSWER: &str = "answer";
/// Programs, by the names of their functions.
pub(super) const PROGRAMS: &[&str] =
    &["from_pod", "to_pod", "from_net", "to_net", "from_overlay", "to_overlay", ANSWER];

/// The folders of one node and layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    maps: PathBuf,
    links: PathBuf,
    tracepoints: PathBuf,
}

impl Pins {
    /// Makes the folders, unless another layout is there.
    pub(super) fn open(folder: &Path) -> Result<Self, DatapathError> {
        let own = format!("v{VERSION}");
        let unreadable = |e| DatapathError::kernel(format!("listing {}", folder.display()), e);
        match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
                    if name.starts_with('v') && name != own {
                        return Err(DatapathError::OtherLayout {
                            folder: folder.to_owned(),
                            found: name[1..].to_owned(),
                            ours: VERSION,
                        });
                    }
                }
            }
        }
        let folder = folder.join(&own);
        let pins = Self {
            maps: folder.join("maps"),
            links: folder.join("links"),
            tracepoints: folder.join("tracepoints"),
        };
        for folder in [&pins.maps, &pins.links] {
            fs::create_dir_all(folder)
                .map_err(|e| DatapathError::kernel(format!("making {}", folder.display()), e))?;
        }
        Ok(pins)
    }

    /// Where links are pinned.
    pub(super) fn links_folder(&self) -> PathBuf {
        self.links.clone()
    }

    /// Where links to tracepoints are pinned, apart from those of interfaces. The folder may not exist.
    pub(super) fn tracepoints_folder(&self) -> &Path {
        &self.tracepoints
    }

    /// Loads the programs over the pinned maps; missing maps are made and pinned. The program at the tracepoint is left to
    /// `kernel_drops.rs`, which may not be able to attach it.
    pub(super) fn load(
        &self,
        object: &[u8],
        settings: &Settings,
        places: Option<&Places>,
    ) -> Result<Ebpf, DatapathError> {
        let settings = Abi(*settings);
        let places = places.copied().map(Abi);
        let mut loader = EbpfLoader::new();
        loader.override_global("SETTINGS", &settings, true);
        if let Some(places) = &places {
            loader.override_global("PLACES", places, true);
        }
        let defined = aya_obj::Object::parse(object)
            .map_err(|e| DatapathError::kernel("reading what maps the programs need", e))?
            .maps;
        for name in PINNED {
            let wanted = defined.get(*name).ok_or_else(|| without_map(name))?;
            let path = self.maps.join(name);
            check(&path, &Shape::defined(wanted))?;
            loader.map_pin_path(name, path);
        }
        let mut loaded = loader
            .load(object)
            .map_err(|e| DatapathError::kernel("making maps and reading the programs", e))?;
        for name in PROGRAMS {
            program(&mut loaded, name)?
                .load()
                .map_err(|e| DatapathError::kernel(format!("loading program {name}"), e))?;
        }
        let mut next: ProgramArray<_> = typed(self.take(&mut loaded, NEXT)?, NEXT)?;
        let answer = program(&mut loaded, ANSWER)?
            .fd()
            .map_err(|e| DatapathError::kernel("asking for program answer", e))?;
        next.set(0, answer, 0).map_err(|e| DatapathError::kernel("setting program answer", e))?;
        // Without a pin the kernel would empty the array when this process ends.
        let own = next_name(self.next_pins()?.last().map_or(0, |(number, _)| number + 1));
        next.pin(self.maps.join(&own)).map_err(|e| DatapathError::kernel(format!("pinning {own}"), e))?;
        Ok(loaded)
    }

    /// Removes the arrays of programs that are attached nowhere any more.
    pub(super) fn forget_earlier_programs(&self) -> Result<(), DatapathError> {
        let mut pinned = self.next_pins()?;
        pinned.pop();
        for (_, name) in pinned {
            fs::remove_file(self.maps.join(&name))
                .map_err(|e| DatapathError::kernel(format!("removing {name}"), e))?;
        }
        Ok(())
    }

    /// The pinned arrays of programs reached by tail call, by the numbers of the loads that made them.
    fn next_pins(&self) -> Result<Vec<(u32, String)>, DatapathError> {
        let attempt = || format!("listing {}", self.maps.display());
        let mut pinned = Vec::new();
        for entry in fs::read_dir(&self.maps).map_err(|e| DatapathError::kernel(attempt(), e))? {
            let name = entry.map_err(|e| DatapathError::kernel(attempt(), e))?.file_name();
            let name = name.to_string_lossy().into_owned();
            pinned.extend(load_of(&name).map(|number| (number, name)));
        }
        pinned.sort_unstable();
        Ok(pinned)
    }

    /// What the kernel says of a pinned map, beside its entries.
    pub(super) fn fill(&self, counted: &Counted) -> Option<MapFill> {
        let Counted { name, kind, entries, evictions } = *counted;
        let map = MapInfo::from_pin(self.maps.join(name)).ok()?;
        Some(MapFill {
            name,
            kind,
            entries,
            evictions,
            capacity: map.max_entries(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            id: map.id(),
        })
    }

    /// Another handle of a pinned map.
    pub(super) fn open_again(&self, name: &'static str) -> Result<Map, DatapathError> {
        MapData::from_pin(self.maps.join(name))
            .and_then(Map::from_map_data)
            .map_err(|e| DatapathError::kernel(format!("opening pinned map {name}"), e))
    }

    /// A map of the loaded object.
    pub(super) fn take(&self, loaded: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
        loaded.take_map(name).ok_or_else(|| without_map(name))
    }
}

/// A name that bpffs accepts, which refuses dots. No name used here contains a percent sign: neither names of Kubernetes,
/// nor those of interfaces, where the kernel replaces it.
pub(super) fn without_dots(name: &str) -> String {
    name.replace('.', "%2e")
}

fn next_name(load: u32) -> String {
    format!("{NEXT}-{load}")
}

fn load_of(pin_name: &str) -> Option<u32> {
    match pin_name.strip_prefix(NEXT)? {
        "" => Some(0),
        numbered => numbered.strip_prefix('-')?.parse().ok(),
    }
}

fn without_map(name: &str) -> DatapathError {
    DatapathError::kernel(format!("looking for map {name}"), "the programs don't have it")
}

/// The properties of a map that must be what the programs were compiled for and the engine's limits assume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    capacity: u32,
    flags: u32,
}

impl Shape {
    fn defined(map: &aya_obj::Map) -> Self {
        Self {
            kind: map.map_type(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            capacity: map.max_entries(),
            flags: map.map_flags(),
        }
    }

    fn pinned(map: &MapInfo) -> Result<Self, MapError> {
        Ok(Self {
            kind: map.map_type()? as u32,
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            capacity: map.max_entries(),
            flags: map.map_flags(),
        })
    }

    /// What of it is not as in `wanted`.
    fn differences(&self, wanted: &Self) -> Vec<String> {
        let parts = [
            ("type", self.kind, wanted.kind),
            ("bytes of a key", self.key_bytes, wanted.key_bytes),
            ("bytes of a value", self.value_bytes, wanted.value_bytes),
            ("capacity", self.capacity, wanted.capacity),
            ("flags", self.flags, wanted.flags),
        ];
        let differs = parts.into_iter().filter(|(_, found, wanted)| found != wanted);
        differs.map(|(part, found, wanted)| format!("{part}: {found} instead of {wanted}")).collect()
    }
}

fn check(path: &Path, wanted: &Shape) -> Result<(), DatapathError> {
    let map = match MapData::from_pin(path) {
        Ok(map) => map,
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => return Ok(()),
        // aya treats a pin that it can't open as missing, and would pin an empty map over the node's state.
        Err(error) => return Err(DatapathError::kernel(format!("opening {}", path.display()), error)),
    };
    let found = map
        .info()
        .and_then(|info| Shape::pinned(&info))
        .map_err(|e| DatapathError::kernel(format!("asking about {}", path.display()), e))?;
    let differences = found.differences(wanted);
    if differences.is_empty() {
        return Ok(());
    }
    Err(DatapathError::OtherMap { path: path.to_owned(), detail: differences.join(", ") })
}

/// Where maps come from: the loaded object, or their pins.
pub(super) type Take<'a> = &'a mut dyn FnMut(&'static str) -> Result<Map, DatapathError>;

/// A map as what it is.
pub(super) fn typed<T>(map: Map, name: &str) -> Result<T, DatapathError>
where
    T: TryFrom<Map>,
    T::Error: std::fmt::Display,
{
    T::try_from(map).map_err(|e| DatapathError::kernel(format!("opening map {name}"), e))
}

/// A program of the loaded object.
pub(super) fn program<'a>(
    loaded: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    loaded
        .program_mut(name)
        .ok_or_else(|| {
            DatapathError::kernel(format!("looking for program {name}"), "the object doesn't have it")
        })?
        .try_into()
        .map_err(|e| DatapathError::kernel(format!("looking at program {name}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_loads_are_told_by_their_numbers() {
        assert_eq!(load_of("NEXT"), Some(0), "the name before each load had an array of its own");
        assert_eq!(load_of(&next_name(17)), Some(17));
        for other in ["NEXTS", "NEXT-", "NEXT-x", "POLICY"] {
            assert_eq!(load_of(other), None, "{other}");
        }
    }

    /// `BPF_MAP_TYPE_LRU_HASH` is 9.
    const CONNECTIONS: Shape =
        Shape { kind: 9, key_bytes: 40, value_bytes: 192, capacity: 262_144, flags: 0 };

    #[test]
    fn a_map_of_the_same_sizes_may_be_another() {
        assert_eq!(CONNECTIONS.differences(&CONNECTIONS), [""; 0]);
        let smaller = Shape { capacity: 65_536, ..CONNECTIONS };
        assert_eq!(smaller.differences(&CONNECTIONS), ["capacity: 65536 instead of 262144"]);
        let other = Shape { kind: 1, key_bytes: 36, value_bytes: 64, flags: 1, ..CONNECTIONS };
        let told = [
            "type: 1 instead of 9",
            "bytes of a key: 36 instead of 40",
            "bytes of a value: 64 instead of 192",
            "flags: 1 instead of 0",
        ];
        assert_eq!(other.differences(&CONNECTIONS), told);
    }

    #[test]
    fn what_cannot_be_opened_is_not_taken_for_missing() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("absent"), &CONNECTIONS).unwrap();
        // A file that is no map: the kernel answers EINVAL or EPERM, by whether it is on bpffs.
        let path = folder.path().join("present");
        fs::write(&path, b"").unwrap();
        let error = check(&path, &CONNECTIONS).unwrap_err();
        assert!(error.to_string().starts_with(&format!("opening {}", path.display())), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node");
        fs::write(&path, b"").unwrap();
        assert!(Pins::open(&path).unwrap_err().to_string().starts_with("listing"));
        let other = folder.path().join("other");
        fs::create_dir_all(other.join(format!("v{}", VERSION + 1))).unwrap();
        assert!(matches!(Pins::open(&other), Err(DatapathError::OtherLayout { .. })));
    }
}
