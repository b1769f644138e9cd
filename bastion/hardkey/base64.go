package hardkey

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// decode reads base64 of at most limit bytes, strictly.
func decode(text string, limit int) ([]byte, error) {
	if len(text) > base64.StdEncoding.EncodedLen(limit) {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	if strings.ContainsAny(text, "\r\n") { // which the decoder skips
		return nil, fmt.Errorf("base64 in more than one line")
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("empty")
	}
	return data, nil
}
