package hint

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestHint(t *testing.T) {
	inner := New(io.ErrUnexpectedEOF, "mend %d", 1)
	outer := fmt.Errorf("reading %q: %w", "x", inner)
	tests := []struct {
		name       string
		err        error
		text, hint string
	}{
		{"wrapped", outer, `reading "x": unexpected EOF`, "mend 1"},
		{"first wins", New(outer, "mend 2"), `reading "x": unexpected EOF`, "mend 2"},
		{"joined", errors.Join(io.EOF, inner), "EOF\nunexpected EOF", "mend 1"},
		{"none", io.EOF, "EOF", ""},
	}
	for _, tt := range tests {
		if got := Of(tt.err); got != tt.hint {
			t.Errorf("%s: Of: got %q, want %q", tt.name, got, tt.hint)
		}
		if got := tt.err.Error(); got != tt.text {
			t.Errorf("%s: Error: got %q, want %q", tt.name, got, tt.text)
		}
	}
	if !errors.Is(outer, io.ErrUnexpectedEOF) {
		t.Error("a hint hides the error it wraps")
	}
	if New(nil, "mend") != nil {
		t.Error("New(nil): got an error, want nil")
	}
	if got := Of(nil); got != "" {
		t.Errorf("Of(nil): got %q, want none", got)
	}
}
