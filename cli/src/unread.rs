//! What a folder holds and an answer could not take into account: documents that are no objects, objects whose name is
//! taken, policies of which only the closing half counts.
//!
//! An answer that leaves such a document out in silence is wrong where the document would have closed something.
//! Neighbours: `folder.rs` finds them; `explain --from-folder`, `simulate` and `validate` tell of them.

use serde_json::{Value, json};
use sinew_api::object::{Object, Problem};

use crate::explain::words;
use crate::failure::Failure;
use crate::folder::{self, Folder};
use crate::output;

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
            // Nothing of it would count on a node either. What is nearly the name of one of our kinds is not foreign.
            if refused.foreign {
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
        self.lines().iter().for_each(output::tell);
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
                "{} of the folder {} count, so the verdict is not that of the folder",
                words::count(count, "document", "documents"),
                if count == 1 { "does not" } else { "do not" }
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
            lines.push(match self.foreign {
                1 => "1 document of another kind was passed over".to_owned(),
                count => format!("{count} documents of other kinds were passed over"),
            });
        }
        lines
    }
}

fn first(problems: &[Problem]) -> String {
    match problems {
        [] => String::new(),
        [only] => one(only),
        [first, rest @ ..] => format!("{} (and {} more)", one(first), rest.len()),
    }
}

/// A file as a whole has no path.
fn one(problem: &Problem) -> String {
    if problem.path.is_empty() { problem.message.clone() } else { problem.to_string() }
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
        assert_eq!(lines[2], "1 document of another kind was passed over");
        assert_eq!(unread.value()[1]["inPart"], true);
        let refused = unread.refuse_check().unwrap_err();
        assert!(refused.message.starts_with("2 documents of the folder do not count, "), "{refused}");
        assert!(Unread::default().refuse_check().is_ok());
    }

    fn of(text: &str) -> Unread {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        Unread::of(&Folder::read(folder.path()).unwrap())
    }

    #[test]
    fn a_slip_in_the_kind_is_no_other_kind() {
        let slip = of("apiVersion: cilium.io/v2\nkind: CiliumNetworkpolicy\nmetadata: {name: web}\n");
        let [line] = slip.lines().try_into().unwrap();
        assert!(line.contains(" does not count: kind: \"CiliumNetworkpolicy\" of "), "{line}");
        let refused = slip.refuse_check().unwrap_err();
        assert!(refused.message.starts_with("1 document of the folder does not count, "), "{refused}");

        let other = of("apiVersion: apps/v1\nkind: Deployment\n---\napiVersion: v1\nkind: Service\n");
        assert_eq!(other.lines(), ["2 documents of other kinds were passed over"]);
        assert!(other.refuse_check().is_ok());
    }

    #[test]
    fn a_file_as_a_whole_has_no_path() {
        let [line] = of("").lines().try_into().unwrap();
        assert!(line.contains(" does not count: the file is empty"), "{line}");
    }
}
