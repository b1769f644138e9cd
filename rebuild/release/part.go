package release

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
)

// Reason codes of refused parts.
const (
	PartTruncated = "part_truncated" // shorter than signed
	PartOversize  = "part_oversize"  // longer than signed
	PartAltered   = "part_altered"   // other bytes than signed
)

// copyBuffer is how much is read and hashed at a time.
const copyBuffer = 256 << 10

// maxIdleReads is how often in a row a reader may return nothing.
const maxIdleReads = 100

// Copy streams a part from src to dst while hashing it, and stops at the signed size. What dst got may be used only if Copy
// returns nil. A *Refusal says that src is not the part that was signed; any other error is the reader's or writer's own, and
// another try may succeed.
func (p Part) Copy(dst io.Writer, src io.Reader) error {
	want, err := hex.DecodeString(p.SHA256)
	if err != nil || len(want) != sha256.Size || p.Size <= 0 {
		return refuse(PartAltered, "the part's own size or hash is malformed")
	}
	h := sha256.New()
	buf := make([]byte, copyBuffer)
	var got int64
	for idle := 0; ; {
		// One byte more than signed is asked for, so that a longer part is noticed.
		n, err := src.Read(buf[:min(int64(len(buf)), p.Size-got+1)])
		got += int64(n)
		if got > p.Size {
			return refuse(PartOversize, "more than the %d bytes that were signed", p.Size)
		}
		h.Write(buf[:n])
		if _, err := dst.Write(buf[:n]); err != nil {
			return fmt.Errorf("writing a part: %w", err)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading a part: %w", err)
		}
		if idle++; n > 0 {
			idle = 0
		} else if idle > maxIdleReads {
			return fmt.Errorf("reading a part: %w", io.ErrNoProgress)
		}
	}
	if got < p.Size {
		return refuse(PartTruncated, "%d bytes, %d were signed", got, p.Size)
	}
	if subtle.ConstantTimeCompare(h.Sum(nil), want) != 1 {
		return refuse(PartAltered, "SHA-256 is %x, %s was signed", h.Sum(nil), p.SHA256)
	}
	return nil
}
