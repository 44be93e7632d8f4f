//! Setting files aside, under the names that the Collector gives them: `data.json` becomes
//! `data-2022-09-14T05-02-14.173.json`, after the time in UTC.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::config::Rotation;
use super::open::{Begin, OpenFile};

const DAY: u64 = 24 * 3600;

/// Renames the file, and begins a new one in its place, with the permissions `mode`.
pub(super) fn set_aside(file: &mut OpenFile, mode: u32, unix_nanos: u64) -> io::Result<()> {
    file.sync()?;
    let path = file.path().to_owned();
    let now = UNIX_EPOCH + Duration::from_nanos(unix_nanos);
    // Two in one millisecond, or a clock that went back: nothing is overwritten, the newest sorts last.
    let newest = backups(&path)?.into_iter().map(|(time, _)| time + Duration::from_millis(1)).max();
    let time = newest.map_or(now, |newest| newest.max(now));
    match fs::rename(&path, aside(&path, time)) {
        // Somebody has taken it away, or the last attempt could not begin the new one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        outcome => outcome?,
    }
    *file = OpenFile::open(&path, Begin::Empty, mode)?;
    Ok(())
}

/// Removes files that were set aside, as far as they are too many or too old. What cannot be removed
/// is left, with a warning.
pub(super) fn clean_up(path: &Path, rotation: &Rotation, unix_nanos: u64) {
    let now = UNIX_EPOCH + Duration::from_nanos(unix_nanos);
    let mut backups = match backups(path) {
        Ok(backups) => backups,
        Err(error) => return warn(path, &error),
    };
    backups.sort_by(|one, other| other.cmp(one));
    for (index, (time, backup)) in backups.iter().enumerate() {
        let is_many = rotation.max_backups > 0 && index >= rotation.max_backups;
        let age = now.duration_since(*time).unwrap_or_default();
        let is_old = rotation.max_days > 0 && age.as_secs() > rotation.max_days.saturating_mul(DAY);
        if (is_many || is_old)
            && let Err(error) = fs::remove_file(backup)
        {
            warn(backup, &error);
        }
    }
}

fn warn(path: &Path, error: &io::Error) {
    tracing::warn!(exporter = "file", path = %path.display(), %error, "cannot remove old files");
}

/// What stands before and behind the time.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    (format!("{}-", text(path.file_stem())), extension)
}

fn aside(path: &Path, time: SystemTime) -> PathBuf {
    let (before, behind) = parts(path);
    let time = humantime::format_rfc3339_millis(time).to_string();
    path.with_file_name(format!("{before}{}{behind}", time.trim_end_matches('Z').replace(':', "-")))
}

/// The files that were set aside, with the time in their names.
fn backups(path: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let (before, behind) = parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let stamp = name.strip_prefix(&before).and_then(|rest| rest.strip_suffix(&behind));
        let time = stamp.and_then(|stamp| {
            let (date, time) = stamp.split_once('T')?;
            humantime::parse_rfc3339(&format!("{date}T{}Z", time.replace('-', ":"))).ok()
        });
        found.extend(time.map(|time| (time, entry.path())));
    }
    Ok(found)
}
