// Package tpm is what mayfly-init does with the machine's TPM to prove itself to the signer: it makes the endorsement key from the
// standard's template, a new attestation key, decrypts the challenge's secret, and quotes. rebuild/attest verifies. Nothing that it
// makes outlives Close, and nothing is stored in the TPM.
package tpm
