use std::io::Write as _;

use super::*;

fn stream(seed: u8, name: &str) -> OwnStream {
    OwnStream {
        seed: [seed; 32],
        name: name.to_owned(),
        description: Some("about".to_owned()),
        unlisted: true,
        stream_key: "secret".to_owned(),
        started_at_ms: 1_700_000_000_000,
        paused: false,
        record_seq: 5,
        marks: marks(1, 2, 3),
    }
}

fn marks(epoch: u32, group: u64, time_ns: i64) -> Marks {
    Marks {
        epoch,
        group,
        time_ns,
    }
}

#[test]
fn streams_survive_a_restart_and_removal_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (stream(1, "one"), stream(2, "two"));
    let storage = Storage::open(dir.path()).unwrap();
    assert_eq!(storage.streams().unwrap(), []);
    storage.put_stream(&one).unwrap();
    storage.put_stream(&two).unwrap();
    storage.remove_stream(one.id()).unwrap();
    storage.remove_stream(one.id()).unwrap();
    drop(storage);
    let storage = Storage::open(dir.path()).unwrap();
    assert_eq!(storage.streams().unwrap(), [two]);
}

#[test]
fn marks_and_sequence_numbers_only_rise() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let old = stream(1, "one");
    let id = old.id();
    storage.put_stream(&old).unwrap();
    storage.raise_marks(id, marks(2, 1, 30)).unwrap();
    storage.raise_marks(id, marks(0, 20, -1)).unwrap();
    storage.raise_stream_record_seq(id, 9).unwrap();
    storage.raise_stream_record_seq(id, 8).unwrap();
    // Someone renames it who read it before the marks rose.
    let renamed = OwnStream {
        name: "uno".to_owned(),
        ..old
    };
    storage.put_stream(&renamed).unwrap();
    storage.raise_record_seq(7).unwrap();
    storage.raise_record_seq(6).unwrap();
    drop(storage);
    let storage = Storage::open(dir.path()).unwrap();
    let kept = storage.streams().unwrap().remove(0);
    assert_eq!((kept.name.as_str(), kept.record_seq), ("uno", 9));
    assert_eq!(kept.marks, marks(2, 20, 30));
    assert_eq!(storage.record_seq().unwrap(), 7);
}

#[test]
fn marks_of_an_unknown_stream_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let error = storage.raise_marks(stream(1, "one").id(), marks(1, 1, 1));
    assert!(matches!(error, Err(StorageError::UnknownStream(_))));
}

#[test]
fn node_key_is_made_once_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&dir.path().join("made/on/demand")).unwrap();
    let key = storage.node_key().unwrap().public();
    assert_eq!(storage.node_key().unwrap().public(), key);
    drop(storage);
    let dir = dir.path().join("made/on/demand");
    let storage = Storage::open(&dir).unwrap();
    assert_eq!(storage.node_key().unwrap().public(), key);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.join("node.key")), 0o600);
        assert_eq!(mode(&dir), 0o700);
    }
}

#[test]
fn spoilt_key_file_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let path = dir.path().join("node.key");
    for text in ["", "abc", &"é".repeat(32), &"x".repeat(64)] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(storage.node_key(), Err(StorageError::Key(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn second_node_on_one_folder_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let first = Storage::open(dir.path()).unwrap();
    let error = Storage::open(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::AlreadyRunning(_)));
    assert!(error.to_string().contains("another astral-node is running"));
    drop(first);
    Storage::open(dir.path()).unwrap();
}

#[test]
fn file_that_is_no_database_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = database_path(dir.path());
    let text = "not a database ".repeat(10_000);
    std::fs::write(&path, &text).unwrap();
    let error = Storage::open(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("left as it is"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn database_of_a_later_version_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let raised = storage.with(|database| {
        let transaction = begin(database)?;
        transaction
            .open_table(NUMBERS)?
            .insert(LAYOUT, LAYOUT_VERSION + 1)?;
        Ok(transaction.commit()?)
    });
    raised.unwrap();
    drop(storage);
    for _ in 0..2 {
        let error = Storage::open(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Newer { found: 2, .. }));
        assert!(error.to_string().contains("update astral-node"));
    }
}

#[test]
fn stream_of_a_later_form_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let one = stream(1, "one");
    let mut row = one.encode();
    row[0] += 1;
    let put = storage.with(|database| replace_row(begin(database)?, one.id(), Some(&row)));
    put.unwrap();
    assert!(storage.streams().is_err());
    assert!(storage.put_stream(&one).is_err());
    let kept = storage.with(|database| stored_row(&begin(database)?, one.id()));
    assert_eq!(kept.unwrap(), Some(row));
}

#[test]
fn marks_in_the_spare_room_move_into_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let (one, gone) = (stream(1, "one"), stream(2, "gone"));
    let storage = Storage::open(dir.path()).unwrap();
    storage.put_stream(&one).unwrap();
    for id in [one.id(), gone.id()] {
        let mut spare = lock(&storage.shared.spare);
        let spare = spare.as_mut().unwrap();
        spare.raise(id, marks(7, 70, 700)).unwrap();
    }
    assert_eq!(storage.streams().unwrap()[0].marks, marks(7, 70, 700));
    drop(storage);
    let storage = Storage::open(dir.path()).unwrap();
    assert_eq!(lock(&storage.shared.spare).as_ref().unwrap().streams(), []);
    let kept = storage.streams().unwrap();
    assert_eq!(kept[0].marks, marks(7, 70, 700));
    assert_eq!(kept.len(), 1);
}

/// Does not run by itself: the other half of the test below.
#[test]
#[ignore = "the process that is killed in marks_survive_a_killed_process"]
fn child_raises_marks_until_killed() {
    let Some(dir) = std::env::var_os("TEST_STORAGE_DIR") else {
        return;
    };
    let storage = Storage::open(Path::new(&dir)).unwrap();
    let one = stream(1, "one");
    storage.put_stream(&one).unwrap();
    for group in 10.. {
        storage.raise_marks(one.id(), marks(1, group, 0)).unwrap();
        println!("durable<{group}>");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn marks_survive_a_killed_process() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::tests::child_raises_marks_until_killed"])
        .args(["--ignored", "--nocapture"])
        .env("TEST_STORAGE_DIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut promised = 0;
    for line in lines.map_while(Result::ok) {
        let Some((_, rest)) = line.split_once("durable<") else {
            continue;
        };
        promised = rest.trim_end_matches('>').parse().unwrap();
        if promised == 15 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let kept = Storage::open(dir.path()).unwrap().streams().unwrap();
    assert!(promised >= 15 && kept[0].marks.group >= promised);
}

mod memory;
