package bench

import "time"

// BootFigures are the boots of one server: netbooted, and with firmware and a TPM.
type BootFigures struct {
	verify, serving, tpm []float64
}

// Add adds a boot.
func (f *BootFigures) Add(tpm bool, serving, verified time.Duration) {
	if tpm {
		f.tpm = append(f.tpm, serving.Seconds())
		return
	}
	f.serving, f.verify = append(f.serving, serving.Seconds()), append(f.verify, verified.Seconds())
}

// Report are the medians.
func (f *BootFigures) Report() Report {
	return Report{Bench: "boot", Results: []Result{
		{Name: "verify_s", Unit: "s", Ours: median(f.verify)},
		{Name: "serving_s", Unit: "s", Ours: median(f.serving)},
		{Name: "serving_tpm_s", Unit: "s", Ours: median(f.tpm)},
	}}
}
