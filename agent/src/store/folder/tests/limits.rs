//! Folders that are not read, because they are too deep or can't be listed: they harm nothing beside them.

use sinew_api::object::decode_text;

use super::*;

/// A folder in the store, of so many levels, with a file at its end.
fn deep(folder: &Folder, levels: usize) -> String {
    let path = vec!["d"; levels].join("/");
    folder.write(&format!("{path}/x.yaml"), &namespace("deep"));
    path
}

#[tokio::test]
async fn a_folder_that_is_too_deep_keeps_nothing_of_another_in_force() {
    let mut folder = Folder::open();
    folder.batch().await;
    deep(&folder, 17);
    folder.write("team/x.yaml", &namespace("one"));
    assert_eq!(folder.until_looked(1).await, ["+Namespace/one"]);
    let outside = tempfile::tempdir().unwrap();
    fs::rename(folder.folder.path().join("team"), outside.path().join("team")).unwrap();
    assert_eq!(folder.until_looked(2).await, ["-Namespace/one"]);
}

/// Folders with the longest names that there are, as deep as folders are read: no system call takes so long a path.
fn unlistable(root: &std::path::Path) -> String {
    fs::create_dir_all(root.join(vec!["d"; 16].join("/"))).unwrap();
    for level in (1..=16).rev() {
        let above = root.join(vec!["d"; level - 1].join("/"));
        fs::rename(above.join("d"), above.join("d".repeat(255))).unwrap();
    }
    vec!["d".repeat(255); 16].join("/")
}

#[tokio::test]
async fn what_a_folder_held_that_cannot_be_listed_at_start_stays_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = unlistable(folder.path());
    let known = |file: &str, name: &str| decode_text(file, &namespace(name)).remove(0).unwrap();
    let kept = vec![known(&format!("{path}/x.yaml"), "hidden"), known("team/y.yaml", "gone")];
    let mut folder = Folder::open_again(folder, kept);
    let batch = folder.batch().await;
    assert!(batch.synced);
    assert_eq!(names(&batch), ["+Namespace/hidden"], "and not what is gone");
    assert_eq!(batch.refused.unwrap().len(), 1, "its author is told");
}

impl Folder {
    /// Trouble of a sort, as soon as there is some that says this.
    async fn until_troubled(&mut self, of: impl Fn(&Trouble) -> &String, words: &str) -> Trouble {
        loop {
            let batch = self.batch().await;
            if let Some(trouble) = batch.trouble.filter(|trouble| of(trouble).contains(words)) {
                return trouble;
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_read_is_a_warning_and_an_unreadable_store_a_failure() {
    let mut folder = Folder::open();
    folder.batch().await;
    let path = deep(&folder, 17);
    folder.store.write(StoreWrite::Look(1)).await;
    let trouble = folder.until_troubled(|trouble| &trouble.warning, "more than 16 folders deep").await;
    assert_eq!(trouble.failure, "");
    fs::remove_dir_all(folder.folder.path().join(path)).unwrap();
    folder.store.write(StoreWrite::Look(2)).await;
    assert_eq!(folder.until_troubled(|trouble| &trouble.warning, "").await, Trouble::default());

    unlistable(folder.folder.path());
    folder.store.write(StoreWrite::Look(3)).await;
    let trouble = folder.until_troubled(|trouble| &trouble.warning, "cannot be listed").await;
    assert_eq!(trouble.failure, "");

    fs::remove_dir_all(folder.folder.path()).unwrap();
    folder.store.write(StoreWrite::Look(4)).await;
    folder.until_troubled(|trouble| &trouble.failure, "cannot be listed").await;
}

#[tokio::test]
async fn a_file_in_the_place_of_a_folder_ends_what_the_folder_held() {
    let mut folder = Folder::open();
    folder.batch().await;
    folder.write("team/x.yaml", &namespace("one"));
    folder.until_set("one").await;
    let outside = tempfile::tempdir().unwrap();
    fs::rename(folder.folder.path().join("team"), outside.path().join("team")).unwrap();
    folder.write("team", "");
    assert_eq!(folder.until_looked(1).await, ["-Namespace/one"]);
}

#[test]
fn what_is_below_a_folder_that_cannot_be_listed_may_be_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("team")).unwrap();
    // No folder, as one of a file system that is away.
    fs::write(folder.path().join("away"), "").unwrap();
    let mut walk = files::Walk::from(["team", "away", "gone"]);
    while walk.step(folder.path(), |_| {}).is_some() {}
    let kept = ["away/x.yaml", "team/x.yaml", "away.yaml", "gone/x.yaml", "x.yaml"]
        .map(|path| walk.may_have_passed(path));
    assert_eq!(kept, [true, false, false, false, false]);
}

#[test]
fn each_folder_is_listed_once() {
    let folder = tempfile::tempdir().unwrap();
    for path in [".identities", ".endpoints/a", ".nodes", ".status/Pod", "team/inner"] {
        fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    let mut walk = files::Walk::of_store();
    let mut listed = Vec::new();
    while let Some((path, _)) = walk.step(folder.path(), |_| {}) {
        listed.push(path);
    }
    listed.sort();
    assert_eq!(listed, ["", ".endpoints", ".endpoints/a", ".identities", ".nodes", "team", "team/inner"]);
}
