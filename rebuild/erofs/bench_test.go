package erofs

import (
	"io"
	"testing"
)

// BenchmarkWrite compresses and writes an image of text and noise.
func BenchmarkWrite(b *testing.B) {
	files := sample()
	size := 0
	for _, f := range files {
		size += len(f.Data)
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		if err := Write(b.Context(), io.Discard, files, epoch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads it back.
func BenchmarkRead(b *testing.B) {
	data := image(b, sample())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Read(data); err != nil {
			b.Fatal(err)
		}
	}
}
