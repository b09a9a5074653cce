//! How editors and git save a file: it is away for a moment, and nothing that it holds may go with it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::thread::sleep;

use super::*;

/// Rounds that are judged; one in which this thread had to wait for a processor is not.
const ROUNDS: usize = 5;
/// A save that takes longer is seen in the middle, as it should be.
const AT_ONCE: Duration = Duration::from_millis(30);

/// Saves a file of namespace `one` and another namespace in steps, as `take_away` has it, until it went quickly often
/// enough. What was told on the way.
async fn save(folder: &mut Folder, take_away: impl Fn(&Path), look: bool) -> Vec<Batch> {
    let path = folder.folder.path().join("x.yaml");
    folder.write("x.yaml", &(namespace("one") + "---\n" + &namespace("start")));
    folder.until_set("start").await;
    let (mut told, mut quick) = (Vec::new(), 0);
    for round in 0..10 * ROUNDS {
        let start = Instant::now();
        take_away(&path);
        if look {
            folder.store.write(StoreWrite::Look(round as u64)).await;
        }
        sleep(Duration::from_millis(5));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        sleep(Duration::from_millis(2));
        writeln!(file, "{}---", namespace(&format!("n{round}"))).unwrap();
        sleep(Duration::from_millis(2));
        write!(file, "{}", namespace("one")).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let judged = start.elapsed() < AT_ONCE;
        loop {
            let batch = folder.batch().await;
            let done = names(&batch).contains(&format!("+Namespace/n{round}"));
            if judged {
                told.push(batch);
            }
            if done {
                break;
            }
        }
        quick += usize::from(judged);
        if quick == ROUNDS {
            return told;
        }
        folder.until_looked(1000 + round as u64).await;
    }
    panic!("{quick} rounds were quick enough");
}

fn never_went(told: &[Batch]) {
    for batch in told {
        assert!(!names(batch).contains(&"-Namespace/one".to_owned()), "{batch:?}");
        let refused = batch.refused.as_deref().unwrap_or_default();
        assert!(refused.is_empty(), "no half of a file is read: {refused:?}");
    }
}

/// vim's default: the file becomes the backup, and its name is made anew.
#[tokio::test]
async fn a_file_that_vim_saves_never_loses_what_it_holds() {
    let mut folder = Folder::open();
    folder.batch().await;
    let backup = |path: &Path| fs::rename(path, path.with_file_name("x.yaml~")).unwrap();
    never_went(&save(&mut folder, backup, false).await);
    never_went(&save(&mut folder, backup, true).await);
    // One that does not come back is gone, and so is what it held.
    backup(&folder.folder.path().join("x.yaml"));
    assert!(folder.until_looked(2000).await.contains(&"-Namespace/one".to_owned()));
}

#[tokio::test]
async fn a_file_that_git_checks_out_never_loses_what_it_holds() {
    let mut folder = Folder::open();
    folder.batch().await;
    never_went(&save(&mut folder, |path| fs::remove_file(path).unwrap(), false).await);
}

#[tokio::test]
async fn a_last_good_version_outlives_the_saving_of_a_refused_one() {
    let mut folder = Folder::open();
    folder.batch().await;
    let path = folder.folder.path().join("x.yaml");
    let mut quick = 0;
    for round in 0.. {
        folder.write("x.yaml", &namespace("one"));
        folder.until_looked(2 * round).await;
        let start = Instant::now();
        fs::rename(&path, path.with_file_name("x.yaml~")).unwrap();
        fs::write(&path, format!("round: [{round}")).unwrap();
        if start.elapsed() < AT_ONCE {
            assert!(folder.until_looked(2 * round + 1).await.is_empty(), "what it held stays in force");
            quick += 1;
        }
        if quick == ROUNDS {
            break;
        }
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(folder.until_looked(u64::MAX).await, ["-Namespace/one"]);
}

#[tokio::test]
async fn a_look_tells_of_all_that_was_removed_before_it() {
    let mut folder = Folder::open();
    folder.batch().await;
    for look in 0..5 {
        folder.write("team/x.yaml", &namespace("one"));
        folder.until_set("one").await;
        fs::remove_dir_all(folder.folder.path().join("team")).unwrap();
        assert_eq!(folder.until_looked(look).await, ["-Namespace/one"]);
    }
}

#[tokio::test]
async fn a_file_that_is_renamed_is_no_second_claim_to_its_names() {
    let mut folder = Folder::open();
    folder.batch().await;
    let place = |name: &str| folder.folder.path().join(name);
    let (one, two) = (place("x.yaml"), place("y.yaml"));
    folder.write("x.yaml", &namespace("one"));
    folder.until_set("one").await;
    for (from, to) in [(&one, &two), (&two, &one), (&one, &two)] {
        fs::rename(from, to).unwrap();
        let batch = folder.batch().await;
        assert_eq!(names(&batch), ["+Namespace/one"], "{to:?}");
        assert!(batch.refused.iter().flatten().next().is_none(), "{:?}", batch.refused);
    }
}
