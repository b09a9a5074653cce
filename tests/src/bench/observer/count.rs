//! What the programs of a node say of their rings: records made, and those of them that found a ring full.

use std::ops::Sub;

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use sinew_bpf::abi::VERSION;
use sinew_bpf::maps::RingCount;

use crate::lab::Node;

/// A [`RingCount`] as the map holds it.
type Words = [u64; 2];
const _: () = assert!(size_of::<RingCount>() == size_of::<Words>());

/// Records since the maps were made, of all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Due, taken or lost.
    pub(super) made: u64,
    /// Of them those that were lost.
    pub(super) lost: u64,
}

impl Count {
    /// Now.
    pub(super) fn read(node: &Node) -> Result<Self> {
        let maps = node.directories().bpf_root.join(node.name()).join(format!("v{VERSION}/maps"));
        let path = maps.join("RINGS");
        let map = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        let map: PerCpuArray<_, Words> = PerCpuArray::try_from(Map::PerCpuArray(map))
            .with_context(|| format!("{} is no array of counts", path.display()))?;
        let counts = map.get(&0, 0).context("reading the rings' counts")?;
        let sum = |word: usize| counts.iter().map(|count| count[word]).sum();
        Ok(Self { made: sum(0), lost: sum(1) })
    }
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { made: self.made - earlier.made, lost: self.lost - earlier.lost }
    }
}
