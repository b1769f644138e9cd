package importer

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"mayfly/internal/hint"
)

// parseCSV reads RFC 4180 with a header line. Empty cells are no fields.
func parseCSV(name string, data []byte) ([]Record, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // as spreadsheets write it
	r := csv.NewReader(bytes.NewReader(data))
	r.TrimLeadingSpace = true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: empty", name)
	}
	if err != nil {
		return nil, placeCSV(name, err)
	}
	seen := map[string]bool{}
	for i, key := range header {
		header[i] = strings.TrimSpace(key)
		if header[i] == "" || seen[header[i]] {
			return nil, hint.New(fmt.Errorf("%s:1: column %d is called %q", name, i+1, header[i]), "the first line names each column, each name once")
		}
		seen[header[i]] = true
	}
	var records []Record
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, placeCSV(name, err)
		}
		if len(records) >= maxRecords {
			return nil, fmt.Errorf("%s: more than %d machines", name, maxRecords)
		}
		line, _ := r.FieldPos(0)
		x := Record{Place: fmt.Sprintf("%s:%d", name, line), Fields: map[string]string{}}
		for i, value := range row {
			if value = strings.TrimSpace(value); value != "" {
				x.Fields[header[i]] = value
			}
		}
		records = append(records, x)
	}
}

func placeCSV(name string, err error) error {
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		return hint.New(fmt.Errorf("%s:%d: column %d: %w", name, p.Line, p.Column, p.Err), "fields are separated by commas; one with a comma or a quotation mark stands in quotation marks")
	}
	return fmt.Errorf("%s: %w", name, err)
}
