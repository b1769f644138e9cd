package cpio

import (
	"bytes"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
)

var files = []File{
	{Path: "dir", Mode: fs.ModeDir | 0o755},
	{Path: "dir/file", Mode: 0o600, Data: []byte("hello")},
	{Path: "dir/link", Mode: fs.ModeSymlink | 0o777, Data: []byte("file")},
	{Path: "dir/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3},
	{Path: "empty", Mode: 0o755},
}

func TestWrite(t *testing.T) {
	var a, b bytes.Buffer
	if err := Write(&a, files); err != nil {
		t.Fatal(err)
	}
	if err := Write(&b, files); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same files gave other bytes")
	}
	if a.Len()%blockSize != 0 {
		t.Errorf("archive of %d bytes, want a multiple of %d", a.Len(), blockSize)
	}
	const firstHeader = "070701" + "00000001" + "000041ed" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000004" + "00000000" + "dir\x00"
	if got := a.String()[:len(firstHeader)]; got != firstHeader {
		t.Errorf("first header %q, want %q", got, firstHeader)
	}
	if err := Write(&a, []File{{Path: "pipe", Mode: fs.ModeNamedPipe}}); err == nil {
		t.Error("a pipe was written")
	}
}

// The reader that is on most hosts reads what we write.
func TestPeerReads(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		if cpio, err = exec.LookPath("busybox"); err != nil {
			t.Skip("SKIPPED: neither cpio nor busybox is installed; the VM tests read archives with a kernel")
		}
	}
	var archive bytes.Buffer
	if err := Write(&archive, files); err != nil {
		t.Fatal(err)
	}
	args := []string{"-t"}
	if strings.HasSuffix(cpio, "busybox") {
		args = []string{"cpio", "-t"}
	}
	cmd := exec.Command(cpio, args...)
	cmd.Stdin = &archive
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), "dir\ndir/file\ndir/link\ndir/null\nempty\n"; got != want {
		t.Errorf("%s lists %q, want %q", cpio, got, want)
	}
}
