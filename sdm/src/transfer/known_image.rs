//! Image formats that a file's first bytes give away. Only for a warning: what a file is, the user
//! says, because a raw disk's first bytes belong to its guest and may look like anything.

/// Enough to see every mark, in bytes.
pub const HEAD_BYTES: usize = 512;

/// Where VirtualBox keeps its mark, behind a text for people.
const VDI_AT: usize = 0x40;

/// The format that these first bytes look like, if it is none that a raw disk begins with.
#[must_use]
pub fn known_image(head: &[u8]) -> Option<&'static str> {
    const MARKS: &[(usize, &[u8], &str)] = &[
        (0, b"QFI\xfb", "qcow2"),
        (0, b"KDMV", "VMDK"),
        (0, b"COWD", "VMDK"),
        (0, b"# Disk DescriptorFile", "VMDK"),
        (0, b"vhdxfile", "VHDX"),
        (0, b"conectix", "VHD"),
        (VDI_AT, &[0x7f, 0x10, 0xda, 0xbe], "VDI"),
        (0, b"LUKS\xba\xbe", "LUKS"),
    ];
    let has = |at: usize, mark: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(mark));
    MARKS.iter().find(|(at, mark, _)| has(*at, mark)).map(|(_, _, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_marks_and_nothing_else_is() {
        let mut vdi = [0; HEAD_BYTES];
        vdi[VDI_AT..][..4].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        assert_eq!(known_image(&vdi), Some("VDI"));
        assert_eq!(known_image(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(known_image(b"LUKS\xba\xbe"), Some("LUKS"));
        for head in [&[][..], b"QFI", &[0; HEAD_BYTES], b"\xeb\x63\x90", b" QFI\xfb"] {
            assert_eq!(known_image(head), None);
        }
    }
}
