// Package measure extends a register of the TPM with what mayfly-stub is about to use. It is one command, written by hand, so that the
// program that is loaded first links no TPM library.
package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Device is the TPM behind the kernel's resource manager.
const Device = "/dev/tpmrm0"

// ErrNone says that the machine has no TPM that the kernel knows.
var ErrNone = errors.New("no TPM")

// Numbers of the TPM library specification, part 2.
const (
	tagSessions = 0x8002     // TPM_ST_SESSIONS
	pcrExtend   = 0x00000182 // TPM_CC_PCR_Extend
	password    = 0x40000009 // TPM_RS_PW
	algSHA256   = 0x000b
	headerBytes = 10
	maxAnswer   = 4096
)

// Open opens the TPM so that a read waits for the answer: os.OpenFile would make the descriptor one that does not block, and the kernel then lets a
// write return before the command is done, and a read find nothing.
func Open() (*os.File, error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("opening the TPM: %w", err)
	}
	return os.NewFile(uintptr(fd), Device), nil
}

// Extend extends a register of the SHA-256 bank with these hashes, in order.
func Extend(pcr uint32, digests ...[32]byte) (err error) {
	f, err := Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, d := range digests {
		if err := ExtendOn(f, pcr, d); err != nil {
			return err
		}
	}
	return nil
}

// ExtendOn does the same once, with the TPM behind rw: one write is one command, one read its answer.
func ExtendOn(rw io.ReadWriter, pcr uint32, digest [32]byte) error {
	if _, err := rw.Write(command(pcr, digest)); err != nil {
		return fmt.Errorf("extending PCR %d: %w", pcr, err)
	}
	answer := make([]byte, maxAnswer)
	n, err := rw.Read(answer)
	if err != nil {
		return fmt.Errorf("extending PCR %d: %w", pcr, err)
	}
	if n < headerBytes || int(binary.BigEndian.Uint32(answer[2:])) != n {
		return fmt.Errorf("extending PCR %d: an answer of %d bytes that says it has another length", pcr, n)
	}
	if code := binary.BigEndian.Uint32(answer[6:]); code != 0 {
		return fmt.Errorf("extending PCR %d: the TPM answered %#x", pcr, code)
	}
	return nil
}

// command is TPM2_PCR_Extend with an empty password.
func command(pcr uint32, digest [32]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tagSessions)
	b = binary.BigEndian.AppendUint32(b, 0) // length, below
	b = binary.BigEndian.AppendUint32(b, pcrExtend)
	b = binary.BigEndian.AppendUint32(b, pcr)
	b = binary.BigEndian.AppendUint32(b, 4+2+1+2) // length of the authorization
	b = binary.BigEndian.AppendUint32(b, password)
	b = append(b, 0, 0, 0, 0, 0) // nonce, attributes, password: none
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint16(b, algSHA256)
	b = append(b, digest[:]...)
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	return b
}
