//! `sdm backup create`: takes the stream of whichever member answers, and names the file only once
//! it was read back and found whole.

use super::file::checked;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Progress;
use crate::output::Report;
use crate::output::bytes_text;
use crate::transfer::BackupFile;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::backup_service_client::BackupServiceClient;
use sdm_proto::wire::v1::create_backup_response::Message;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long the member may say nothing: it may be busy, or gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Its options.
#[derive(Args, Debug)]
pub struct CreateBackup {
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
}

/// What it prints.
#[derive(Serialize)]
struct CreatedBackup {
    file: String,
    cluster_id: String,
    pool_id: String,
    epoch: u64,
    /// The last entry in it.
    index: u64,
    feature_level: u32,
    state_hash: String,
    bytes: u64,
    /// BLAKE3 of all bytes of the file before its last 32.
    blake3: String,
    member: String,
}

impl Report for CreatedBackup {
    fn text(&self) -> String {
        format!(
            "backup of cluster {} up to entry {} (epoch {}) in {}: {}\nstate {}\nblake3 {}\n",
            self.cluster_id,
            self.index,
            self.epoch,
            self.file,
            bytes_text(self.bytes),
            self.state_hash,
            self.blake3
        )
    }
}

impl CreateBackup {
    /// Does it.
    ///
    /// # Errors
    /// No member answers, the file exists or cannot be written, or the stream breaks.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let mut file = BackupFile::create(&self.file, self.force, &context.parts)?;
        let mut progress = Progress::begin("backup", context.printer.format);
        let ask = async |link| {
            let mut client = BackupServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.create_backup(v1::CreateBackupRequest {}).await
        };
        let mut stream = context.cluster.call(ask).await?;
        let mut bytes = 0_u64;
        let end = loop {
            let Ok(message) = tokio::time::timeout(SILENCE_MAX, stream.message()).await else {
                return Err(interrupted(format!("nothing came for {} s", SILENCE_MAX.as_secs())));
            };
            match message.map_err(|status| Failure::from(from_status(&status)))?.and_then(|message| message.message) {
                Some(Message::Piece(piece)) => {
                    bytes += piece.len() as u64;
                    // Blocks shortly: pieces are small, and nothing else is to be done meanwhile.
                    tokio::task::block_in_place(|| file.append(&piece))?;
                    progress.state(&bytes_text(bytes));
                }
                Some(Message::End(end)) => break end,
                None => return Err(interrupted("the stream ended early".to_owned())),
            }
        };
        progress.end();
        tokio::task::block_in_place(|| file.sync())?;
        // Read back as a restore would: what cannot be read is no backup.
        let backup = checked(file.part().to_owned()).await?;
        let same = backup.bytes == end.bytes && backup.blake3.as_slice() == end.blake3.as_ref();
        if !same || bytes != end.bytes {
            return Err(interrupted(format!("{bytes} of {} bytes arrived, or not the same", end.bytes)));
        }
        tokio::task::block_in_place(|| file.publish())?;
        context.printer.print(&CreatedBackup {
            file: self.file.display().to_string(),
            cluster_id: end.cluster_id,
            pool_id: end.pool_id,
            epoch: end.epoch,
            index: end.index,
            feature_level: end.feature_level,
            state_hash: end.state_hash,
            bytes: end.bytes,
            blake3: blake3::Hash::from_bytes(backup.blake3).to_hex().to_string(),
            member: end.member,
        })
    }
}

fn interrupted(why: String) -> Failure {
    Refusal::new(Class::Unavailable, "BACKUP_INTERRUPTED", format!("the backup did not arrive whole: {why}"))
        .hint("no file was left behind; repeat it")
        .into()
}
