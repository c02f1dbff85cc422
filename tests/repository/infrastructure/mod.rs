//! Checks the deployment to Azure (`infra/`, `azure.yaml`) against the code. `.ci/bicep.py` checks that the files are
//! valid Bicep.

mod bicep;
mod expression;
mod parameters;
mod resources;
pub mod settings;
