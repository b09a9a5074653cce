//! What a folder holds and an answer could not take into account: documents that are no objects, objects whose name is
//! taken, policies of which only the closing half counts.
//!
//! An answer that leaves such a document out in silence is wrong where the document would have closed something.
//! Neighbours: `folder.rs` finds them; `explain --from-folder`, `simulate` and `validate` tell of them.

use serde_json::{Value, json};
use sinew_api::object::{Object, Problem, Refused};

use crate::failure::Failure;
use crate::folder::{self, Folder};

/// What one folder holds beside its objects.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    documents: Vec<Document>,
    /// Objects of kinds that nothing here reads, such as Deployments.
    foreign: usize,
}

#[derive(Debug)]
struct Document {
    name: String,
    place: String,
    problem: String,
    /// Whether something of it counts all the same.
    in_part: bool,
}

impl Unread {
    /// What a folder's objects leave out.
    pub(crate) fn of(folder: &Folder) -> Self {
        let mut unread = Self::default();
        for refused in &folder.refused {
            if is_foreign(refused) {
                unread.foreign += 1;
                continue;
            }
            unread.documents.push(Document {
                name: refused.name.as_ref().map(ToString::to_string).unwrap_or_default(),
                place: refused.origin.to_string(),
                problem: first(&refused.problems),
                in_part: false,
            });
        }
        let policies = folder.objects.iter().filter_map(|object| match object {
            Object::Policy(policy) if !policy.problems.is_empty() => Some((object, policy)),
            _ => None,
        });
        unread.documents.extend(policies.map(|(object, policy)| Document {
            name: policy.name.to_string(),
            place: folder::origin(object).to_string(),
            problem: first(&policy.problems),
            in_part: true,
        }));
        unread
    }

    /// Tells of them on stderr, where a pipe does not take them for the answer.
    pub(crate) fn tell(&self) {
        self.lines().iter().for_each(|line| eprintln!("sinew: {line}"));
    }

    /// The same for programs.
    pub(crate) fn value(&self) -> Value {
        let one = |document: &Document| {
            json!({
                "name": document.name,
                "place": document.place,
                "problem": document.problem,
                "inPart": document.in_part,
            })
        };
        Value::Array(self.documents.iter().map(one).collect())
    }

    /// A check of a folder that was not read whole has checked something else.
    pub(crate) fn refuse_check(&self) -> Result<(), Failure> {
        match self.documents.len() {
            0 => Ok(()),
            count => Err(Failure::failed(format!(
                "{count} documents of the folder don't count, so the verdict is not that of the folder"
            ))
            .next("what is wrong with them stands above; `sinew policy validate DIR` says all of it")),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for document in &self.documents {
            let name = if document.name.is_empty() { "a document" } else { &document.name };
            let counts = match document.in_part {
                true => "is refused, so what it allows does not count",
                false => "does not count",
            };
            lines.push(format!("warning: {name} at {} {counts}: {}", document.place, document.problem));
        }
        if self.foreign > 0 {
            lines.push(format!("{} documents of other kinds were passed over", self.foreign));
        }
        lines
    }
}

/// An object of somebody else's: nothing of it would count on a node either.
fn is_foreign(refused: &Refused) -> bool {
    refused.name.is_none()
        && refused.problems.iter().all(|problem| problem.path == "kind" && is_word(problem))
}

/// A `kind` that is there and is a word, unlike one that is missing.
fn is_word(problem: &Problem) -> bool {
    problem.message.contains("is not read here")
}

fn first(problems: &[Problem]) -> String {
    match problems {
        [] => String::new(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.yaml");
        std::fs::write(
            &file,
            "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {endpointSelector: {}, ingres: []}
",
        )
        .unwrap();
        let unread = Unread::of(&Folder::read_any(&file).unwrap());
        let lines = unread.lines();
        let place = file.display();
        assert_eq!(lines.len(), 3, "{lines:?}");
        let begin = format!("warning: Namespace/shop at {place}:5 does not count: metadata.name: ");
        assert!(lines[0].starts_with(&begin), "{lines:?}");
        let begin =
            format!("warning: snp/shop/closed at {place}:13 is refused, so what it allows does not count: ");
        assert!(lines[1].starts_with(&begin), "{lines:?}");
        assert_eq!(lines[2], "1 documents of other kinds were passed over");
        assert_eq!(unread.value()[1]["inPart"], true);
        assert!(unread.refuse_check().is_err());
        assert!(Unread::default().refuse_check().is_ok());
    }
}
