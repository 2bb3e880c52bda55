"""DeepLIFT and DeepLIFT-SHAP, by captum."""
