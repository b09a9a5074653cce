//! Folders that are not read, because they are too deep or can't be listed: they harm nothing beside them.

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
