//! Fill of the datapath's tables, read beside the control loop: a walk over full tables takes half a second.

use std::sync::{Arc, PoisonError};

use sinew_api::proto::agent::{ListMapsResponse, Map};
use tonic::Status;

use super::AgentService;

impl AgentService {
    /// All tables, by name.
    pub(super) async fn maps(&self) -> Result<ListMapsResponse, Status> {
        let readings = Arc::clone(&self.sources.readings);
        // One walk at a time, and on a thread that serves nobody else.
        let walk = move || readings.lock().unwrap_or_else(PoisonError::into_inner).fill();
        let fill =
            tokio::task::spawn_blocking(walk).await.map_err(|error| Status::internal(error.to_string()))?;
        let mut maps: Vec<Map> = fill
            .into_iter()
            .map(|fill| Map {
                name: fill.name.to_owned(),
                kind: fill.kind.to_owned(),
                entries: fill.entries,
                capacity: u64::from(fill.capacity),
                pressure: fill.entries as f64 / f64::from(fill.capacity.max(1)),
                key_bytes: fill.key_bytes,
                value_bytes: fill.value_bytes,
                evictions: fill.evictions,
                id: fill.id,
            })
            .collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ListMapsResponse { maps })
    }
}
