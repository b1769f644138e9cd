package cpio

import (
	"bytes"
	"io/fs"
	"reflect"
	"strings"
	"testing"
)

func archive(t testing.TB, files []File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRead(t *testing.T) {
	data := archive(t, files)
	got, rest, err := Read(append(data, "next"...))
	if err != nil || string(rest) != "next" {
		t.Fatalf("rest %q, %v", rest, err)
	}
	for i := range got {
		if len(got[i].Data) == 0 {
			got[i].Data = nil
		}
	}
	if !reflect.DeepEqual(got, files) {
		t.Errorf("read %+v, want %+v", got, files)
	}
	change := func(old, changed string) []byte {
		out := bytes.Replace(data, []byte(old), []byte(changed), 1)
		if bytes.Equal(out, data) {
			t.Fatalf("%q is not in the archive", old)
		}
		return out
	}
	tests := map[string]struct {
		data []byte
		want string
	}{
		"empty":           {nil, "truncated"},
		"truncated":       {data[:len(data)-blockSize], "truncated"},
		"no trailer":      {data[:120], "truncated"},
		"magic":           {change("070701", "070702"), "no newc header"},
		"number":          {change("000041ed", "000041eG"), "bad number"},
		"upper case":      {change("000041ed", "000041ED"), "bad number"},
		"owner":           {change("000041ed00000000", "000041ed00000001"), "field 2 is 1"},
		"set-user-ID":     {change("00008180", "00008980"), "mode 0104600"},
		"pipe":            {change("00008180", "00001180"), "mode 010600"},
		"absolute path":   {archive(t, []File{{Path: "/x"}}), "bad path"},
		"path up":         {archive(t, []File{{Path: "../x"}}), "bad path"},
		"unclean path":    {archive(t, []File{{Path: "a//x"}}), "bad path"},
		"twice":           {archive(t, []File{{Path: "x"}, {Path: "x"}}), "there twice"},
		"zero in a path":  {archive(t, []File{{Path: "x\x00y"}}), "does not end"},
		"dir with data":   {archive(t, []File{{Path: "x", Mode: fs.ModeDir, Data: []byte("x")}}), "data in what holds none"},
		"device's number": {archive(t, []File{{Path: "x", Major: 1}}), "a device's number"},
		"long path":       {archive(t, []File{{Path: strings.Repeat("x", maxPath)}}), "a path of"},
		"padding":         {append(bytes.Clone(data[:len(data)-1]), 1), "padding is not zero"},
	}
	for name, tt := range tests {
		if _, _, err := Read(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// What is accepted is what Write writes.
func FuzzRead(f *testing.F) {
	f.Add(archive(f, files))
	f.Add(archive(f, nil))
	f.Add([]byte(magic + strings.Repeat("0", headerSize)))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, rest, err := Read(data)
		if err != nil {
			return
		}
		if again := archive(t, files); !bytes.Equal(again, data[:len(data)-len(rest)]) {
			t.Error("accepted what Write does not write")
		}
	})
}
