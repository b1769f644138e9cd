package bench

import (
	"fmt"
	"testing"
	"time"
)

// Boots with a TPM are figures of their own, and each figure is a median.
func TestBootFigures(t *testing.T) {
	var f BootFigures
	for i, s := range []int{9, 30, 8} {
		f.Add(false, time.Duration(s)*time.Second, time.Duration(i+1)*time.Second)
		f.Add(true, time.Duration(2*s)*time.Second, time.Hour)
	}
	got := ""
	for _, r := range f.Report().Results {
		got += fmt.Sprintf("%s %g ", r.Name, r.Ours)
	}
	if want := "verify_s 2 serving_s 9 serving_tpm_s 18 "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
