//! `sinew map list`: fill of every table of the datapath. A table that is nearly full is the first sign of trouble.

use anyhow::Result;
use clap::Subcommand;
use sinew_api::proto::agent::{ListMapsRequest, Map};

use crate::output::Paint;
use crate::output::paint::Tone;
use crate::output::table::{Cell, Table};
use crate::{AgentArgs, agent};

/// From here on a fill is odd, and from `FULL` on it is bad.
const FILLING: f64 = 0.75;
const FULL: f64 = 0.95;

/// `sinew map …`.
#[derive(Subcommand)]
pub(crate) enum MapCommand {
    /// Every table with its fill, fullest first
    List(AgentArgs),
}

/// Runs it.
pub(crate) async fn run(command: &MapCommand) -> Result<()> {
    let MapCommand::List(args) = command;
    let answer = args.connect().await?.list_maps(args.request(ListMapsRequest {})).await;
    let answer = answer.map_err(|status| agent::refused(&status))?.into_inner();
    args.screen().show("ListMapsResponse", &answer, |paint| text(&answer.maps, paint))
}

fn text(maps: &[Map], paint: Paint) -> String {
    let mut maps = maps.iter().collect::<Vec<_>>();
    maps.sort_by(|a, b| b.pressure.total_cmp(&a.pressure).then_with(|| a.name.cmp(&b.name)));
    let mut table =
        Table::new(&["NAME", "KIND", "ENTRIES", "CAPACITY", "FILL", "EVICTED", "KEY", "VALUE", "ID"]);
    for map in maps {
        let evicted = map.evictions.map_or_else(String::new, |count| count.to_string());
        table.row([
            (&map.name).into(),
            (&map.kind).into(),
            map.entries.into(),
            map.capacity.into(),
            Cell::toned(tone(map.pressure), percent(map.pressure)),
            evicted.into(),
            map.key_bytes.into(),
            map.value_bytes.into(),
            map.id.into(),
        ]);
    }
    table.render(paint, "The agent knows no tables.")
}

/// What a fill means.
pub(crate) fn tone(pressure: f64) -> Tone {
    if pressure >= FULL {
        Tone::Bad
    } else if pressure >= FILLING {
        Tone::Odd
    } else {
        Tone::Plain
    }
}

/// `12%`, `<1%`, `0%`: a table that holds anything never shows as empty, one with room never as full.
pub(crate) fn percent(share: f64) -> String {
    match share {
        share if share <= 0.0 => "0%".into(),
        share if share < 0.01 => "<1%".into(),
        share if share < 1.0 => format!("{:.0}%", (share * 100.0).floor()),
        share => format!("{:.0}%", share * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullest_first() {
        let lru = Map {
            name: "CT_TCP".into(),
            kind: "lru-hash".into(),
            entries: 131_000,
            capacity: 131_072,
            pressure: 0.9995,
            key_bytes: 44,
            value_bytes: 192,
            evictions: Some(17),
            id: 71,
        };
        let trie = Map {
            name: "POLICY".into(),
            kind: "lpm-trie".into(),
            entries: 4,
            capacity: 16_384,
            pressure: 0.0002,
            key_bytes: 12,
            value_bytes: 24,
            evictions: None,
            id: 72,
        };
        let expected = "\
NAME    KIND      ENTRIES  CAPACITY  FILL  EVICTED  KEY  VALUE  ID
CT_TCP  lru-hash  131000   131072    99%   17       44   192    71
POLICY  lpm-trie  4        16384     <1%   -        12   24     72
";
        assert_eq!(text(&[trie, lru], Paint::Plain), expected);
    }

    #[test]
    fn percentages_do_not_lie_at_the_ends() {
        for (share, expected) in [(0.0, "0%"), (0.0001, "<1%"), (0.5, "50%"), (0.999, "99%"), (1.0, "100%")] {
            assert_eq!(percent(share), expected);
        }
    }
}
