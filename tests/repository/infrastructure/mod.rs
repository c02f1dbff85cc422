//! What is deployed to Azure (`infra/`, `azure.yaml`), held against the code. That the files are Bicep is looked at by
//! `.ci/bicep.py`.

mod bicep;
mod resources;
pub mod settings;
