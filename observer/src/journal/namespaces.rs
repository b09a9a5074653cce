//! Namespaces seen in flows of the last hour.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sinew_api::proto::observer::Namespace;

/// How long a namespace is remembered, in seconds: Hubble's hour.
const MEMORY: i64 = 3600;
/// Most namespaces held. Beyond it a new one takes the place of the one not seen for longest.
const MOST: usize = 4096;

/// By cluster and namespace the second they were last seen in.
type LastSeen = BTreeMap<String, BTreeMap<String, i64>>;

/// The namespaces.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    seen: Mutex<LastSeen>,
}

/// The namespaces, held by whoever sees many flows.
pub(super) struct Seeing<'a>(MutexGuard<'a, LastSeen>);

impl Namespaces {
    /// Takes the lock once for many flows.
    pub(super) fn seeing(&self) -> Seeing<'_> {
        Seeing(self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of the last hour, by cluster and name.
    pub(super) fn list(&self, now: i64) -> Vec<Namespace> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for known in seen.values_mut() {
            known.retain(|_, last| now.saturating_sub(*last) <= MEMORY);
        }
        seen.retain(|_, known| !known.is_empty());
        let pairs = seen.iter().flat_map(|(cluster, known)| known.keys().map(move |name| (cluster, name)));
        pairs.map(|(cluster, name)| Namespace { cluster: cluster.clone(), namespace: name.clone() }).collect()
    }
}

impl Seeing<'_> {
    /// Remembers a namespace; an empty one is none.
    pub(super) fn seen(&mut self, cluster: &str, namespace: &str, second: i64) {
        if namespace.is_empty() {
            return;
        }
        let seen = &mut *self.0;
        // Almost always it is known: no string is made then.
        if let Some(last) = seen.get_mut(cluster).and_then(|known| known.get_mut(namespace)) {
            *last = second.max(*last);
            return;
        }
        if seen.values().map(BTreeMap::len).sum::<usize>() >= MOST {
            forget_oldest(seen);
        }
        seen.entry(cluster.to_owned()).or_default().insert(namespace.to_owned(), second);
    }
}

fn forget_oldest(seen: &mut LastSeen) {
    let all =
        seen.iter().flat_map(|(cluster, known)| known.iter().map(move |(name, last)| (*last, cluster, name)));
    if let Some((_, cluster, name)) = all.min() {
        let (cluster, name) = (cluster.clone(), name.clone());
        if let Some(known) = seen.get_mut(&cluster) {
            known.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(namespaces: &Namespaces, now: i64) -> Vec<String> {
        namespaces.list(now).into_iter().map(|it| format!("{}/{}", it.cluster, it.namespace)).collect()
    }

    #[test]
    fn an_hour_is_remembered_and_sorted() {
        let namespaces = Namespaces::default();
        namespaces.seeing().seen("default", "web", 10_000);
        namespaces.seeing().seen("default", "db", 12_000);
        namespaces.seeing().seen("", "", 12_000);
        assert_eq!(names(&namespaces, 13_000), ["default/db", "default/web"]);
        assert_eq!(names(&namespaces, 13_601), ["default/db"]);
        assert_eq!(names(&namespaces, 15_601), [""; 0]);
    }

    #[test]
    fn the_number_is_bounded_and_the_oldest_leaves() {
        let namespaces = Namespaces::default();
        for (second, index) in (8000..).zip(0..MOST) {
            namespaces.seeing().seen("default", &format!("n{index:05}"), second);
        }
        namespaces.seeing().seen("default", "n00000", 9000);
        namespaces.seeing().seen("default", "new", 9000);
        let names = names(&namespaces, 9000);
        assert_eq!(names.len(), MOST);
        assert!(
            names.contains(&"default/n00000".to_owned()) && !names.contains(&"default/n00001".to_owned())
        );
    }
}
